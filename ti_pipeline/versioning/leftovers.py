"""What killed processes have left: files that DVC or we would have renamed or removed, and that nobody will finish any more."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.lock import LockError
from dvc.repo import Repo
from filelock import FileLock, Timeout

UNTOUCHED = 24 * 3600.0  # seconds, where others may write whose locks we do not know
_TEMPORARY = re.compile(r".*\.[A-Za-z0-9_-]{22}\.tmp|\..+\.pulled")  # DVC's, and ours
_LOCK = "held"


def sweep(repo: Repo) -> None:
    """Remove temporaries from DVC's cache and folders of dead processes from `.dvc/tmp`. Hold the workspace's lock while you call it.

    With DVC's own lock held too, nobody else writes to a cache inside of `.dvc`, so all that looks temporary is dead. A cache that
    clones share, or one that DVC's experiments write to, is swept only of what nobody has touched for a day.
    """
    if not repo.dvc_dir or not repo.tmp_dir:
        return
    own = Path(repo.dvc_dir)
    try:
        with repo.lock:
            for cache in {Path(repo.cache.local.path), Path(repo.cache.legacy.path)}:
                ours = cache.is_relative_to(own) and not (own / "tmp" / "exps").exists()
                _remove(cache, 0.0 if ours else UNTOUCHED)
    except LockError:
        pass  # another DVC is at work: the next run sweeps
    for folder in Path(repo.tmp_dir).glob("reproduce-*"):
        _remove_dead(folder)


@contextmanager
def held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder that goes with the block; one whose process is killed goes with the next `sweep`, and no living one's does."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        with FileLock(folder / _LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path, age: float) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            if _TEMPORARY.fullmatch(name) and _untouched(path := Path(place, name)) >= age:
                path.unlink(missing_ok=True)


def _untouched(path: Path) -> float:
    """Seconds since the file was written, or renamed, which leaves the time of writing as it was."""
    try:
        about = path.lstat()
    except FileNotFoundError:
        return 0.0
    return time.time() - max(about.st_mtime, about.st_ctime)


def _remove_dead(folder: Path) -> None:
    """A living process holds the lock in its folder, or has made the folder a moment ago and is about to."""
    if not (folder / _LOCK).exists() and _untouched(folder) < UNTOUCHED:
        return
    try:
        with FileLock(folder / _LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        pass
