"""One at a time: what writes to the record of a workspace, or publishes it, holds this lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from ti_pipeline.stages.turns import PATIENCE, take


def dvc_folder(root: Path) -> Path | None:
    """DVC's own folder, of the workspace or of the repository that contains it; None if there is none."""
    for folder in (root, *root.parents):
        if (folder / ".dvc").is_dir():
            return folder / ".dvc"
        if (folder / ".git").exists():
            break
    return None


@contextmanager
def alone(root: Path, what: str, say: Callable[[str], None], patience: float = PATIENCE) -> Iterator[None]:
    """Hold the workspace's lock; wait for another holder and say so. The kernel frees it when a holder dies, however it dies.

    Raises PipelineError when the other one is not done in `patience` seconds.
    """
    dvc = dvc_folder(root)
    folder = dvc / "tmp" if dvc else root / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    lock, note = FileLock(folder / "ti-pipeline.lock"), folder / "ti-pipeline.holder"
    take(lock, what, lambda: _holder(note), say, patience)
    try:
        note.write_text(f"{what} (process {os.getpid()})")
        yield
    finally:
        lock.release()


def _holder(note: Path) -> str:
    try:
        return note.read_text() or "another one"
    except OSError:
        return "another one"
