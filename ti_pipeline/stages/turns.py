"""Two processes in one workspace: who works on a stage's concepts has them for itself, and another one waits its turn.

What a process works on stands in a file of its own under `artifacts/locks/`, on which it holds a lock (`flock`). The kernel takes a
lock back when its holder dies, however it dies, so nothing has to be cleaned up by hand. Over NFS version 4 locks hold between
machines too; where a file system has none at all, there are no turns, and that is said.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from filelock import BaseFileLock, FileLock, Timeout

from ti_pipeline.errors import PipelineError
from ti_pipeline.workspace import Workspace

OVERVIEW = "*"  # what a stage writes over all concepts
POLL = 0.2  # seconds between two looks at whether the other one is done
EVERY = 60.0  # seconds between two messages of one that waits
PATIENCE = 3600.0  # seconds that one waits for a whole run or its record
log = logging.getLogger(__name__)
_WITHOUT = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


@contextmanager
def turn(workspace: Workspace, stage: str, names: Collection[str], *, wait: bool = True) -> Iterator[bool]:
    """Have these concepts of a stage for oneself; yields whether one has them, which without `wait` may not be.

    One that has to wait says for whom. All of `names` are taken at once, so two that want each other's never wait for ever.
    A holder must not ask for its own again.
    """
    folder = workspace.artifacts / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    mine, said = None, -EVERY
    while mine is None:
        try:
            mine = _take(folder, stage, set(names))
        except _Taken as other:
            if not wait:
                yield False
                return
            if time.monotonic() - said >= EVERY:
                said = time.monotonic()
                log.warning("%s of %s: waiting for %s", stage, _few(set(names) & other.names), other)
            time.sleep(POLL)
    try:
        yield True
    finally:
        Path(mine.lock_file).unlink(missing_ok=True)
        mine.release()


def take(lock: BaseFileLock, what: str, who: Callable[[], str], say: Callable[[str], None], patience: float = PATIENCE) -> None:
    """Acquire a lock for `what`; wait for another holder, and say for whom. `who` tells who that is.

    Raises PipelineError when the other one has not ended in `patience` seconds.
    """
    until, wait = time.monotonic() + patience, 0.0
    while True:
        try:
            lock.acquire(timeout=wait)
            return
        except Timeout:
            if time.monotonic() >= until:
                raise PipelineError(f"{what}: {who()} has not ended in {patience:.0f} s. Try again when it has.") from None
            say(f"{what} waits for {who()}")
            wait = min(EVERY, max(until - time.monotonic(), 0.0))


class _Taken(Exception):
    """Another process has some of the concepts."""

    def __init__(self, names: set[str], who: str):
        super().__init__(who)
        self.names = names


def _take(folder: Path, stage: str, names: set[str]) -> BaseFileLock:
    """A lock of one's own that says so, unless another's says that it has some of `names`: then _Taken."""
    path = folder / f"{stage}-{uuid4().hex}.held"
    mine = _lock(path)
    try:
        with _open(folder / f"{stage}.lock"):  # for as long as it takes to look
            for other in folder.glob(f"{stage}-*.held"):
                theirs = _read(other)
                wanted = names & theirs["names"] if theirs else True  # who could not say what he has is dead
                if wanted and not _is_dead(other) and theirs:
                    raise _Taken(theirs["names"], theirs["who"])
            path.touch()
            mine.acquire()
            told = {"names": sorted(names), "pid": os.getpid(), "host": socket.gethostname(), "command": _command(), "since": time.time()}
            path.write_text(json.dumps(told), encoding="utf-8")
    except OSError as error:
        if error.errno in _WITHOUT:
            _say_without(folder, str(error.strerror))
            return mine
        path.unlink(missing_ok=True)
        mine.release()
        error.filename = error.filename or str(folder)
        raise
    return mine


@lru_cache
def _say_without(folder: Path, why: str) -> None:
    log.warning("%s: the file system has no locks (%s). Run one command at a time in this workspace.", folder, why)


def _open(path: Path) -> BaseFileLock:
    path.touch()  # with the mode that the umask gives, so that a group can share a workspace
    return _lock(path)


def _lock(path: Path) -> BaseFileLock:
    return FileLock(path, fallback_to_soft=False)  # a file that stands for a lock would outlive a killed process


def _is_dead(path: Path) -> bool:
    """Whether nobody holds that file any more; it is then removed."""
    try:
        with _lock(path).acquire(blocking=False):
            path.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _read(path: Path) -> dict:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        since = datetime.fromtimestamp(told["since"])
        when = f"{since:%H:%M}" if since.date() == datetime.now().date() else f"{since:%Y-%m-%d %H:%M}"
        where = "" if told["host"] == socket.gethostname() else f" on {told['host']}"
        return {"names": set(told["names"]), "who": f"process {told['pid']}{where} (`{told['command']}`), since {when}"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # it is done meanwhile, or died before it could say, or its disk was full


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])


def _few(names: set[str]) -> str:
    return f"{', '.join(sorted(names)[:3])}{' …' if len(names) > 3 else ''}"
