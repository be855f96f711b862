"""One at a time: what writes to the record of a workspace, or publishes it, holds this lock."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ti_pipeline.errors import PipelineError

PATIENCE = 3600.0  # seconds
EVERY = 60.0  # seconds between two messages of one that waits


def dvc_folder(root: Path) -> Path | None:
    """DVC's own folder: the workspace's, or that of a repository which the workspace is a folder of; None where there is none."""
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
    until, wait = time.monotonic() + patience, 0.0
    while True:
        try:
            lock.acquire(timeout=wait)
            break
        except Timeout:
            if time.monotonic() >= until:
                raise PipelineError(f"{what}: {_holder(note)} has not ended in {patience:.0f} s. Try again when it has.") from None
            say(f"{what} waits for {_holder(note)}")
            wait = min(EVERY, max(until - time.monotonic(), 0.0))
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
