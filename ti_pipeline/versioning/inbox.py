"""The inbox: folders of pictures that people drop into a bucket become image sets of the workspace.

A set is staged in `.inbox/` beside the sets, checked, and put in its place by two renames; the record of what was taken lies
in the set itself, so that pictures and record are there together or not at all. A killed run is carried on from the stage.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from ti_pipeline.errors import PipelineError
from ti_pipeline.files import atomic, digest_file, write_json
from ti_pipeline.params import Params
from ti_pipeline.versioning.disk import naming
from ti_pipeline.versioning.dropped import MOST_FILES, Dropped, counted, look, size_of
from ti_pipeline.versioning.lock import alone
from ti_pipeline.versioning.storage import Place, StorageError, again, check, connect, explain
from ti_pipeline.workspace import Workspace

GB = 10**9
# One outsider can neither fill the disk nor keep everybody waiting for a night; a person can copy in what is larger.
MOST_BYTES = 2 * GB  # of a set
MOST_A_RUN = 32 * GB
RESERVE = GB  # of the disk, or a twentieth of a small one, that stays free
FULL = (errno.ENOSPC, errno.EDQUOT)
CHUNK = 1 << 20
STAGE = ".inbox"
RECORD = ".taken.json"
ROUNDS = 10  # over a picture whose connection breaks while it comes: each that lies idle in the pool may be about to
State = Literal["taken", "unchanged", "waiting", "failed"]


@dataclass(frozen=True)
class Arrival:
    """What became of one set: `files` and `bytes` that were downloaded for it, `reason` why it waits or failed."""

    set: str
    state: State
    reason: str = ""
    files: int = 0
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Taking:
    """What is the same for every set of a run."""

    concepts: Path
    here: Place
    now: datetime
    quiet: int
    pool: ThreadPoolExecutor


def bring_in(workspace: Workspace, params: Params, say: Callable[[str], None]) -> list[Arrival]:
    """Bring new and changed sets into `concepts.folder`; an empty list where no inbox is set. Raises PipelineError.

    One bad set never stops the others. Nothing is taken twice: a set whose ETags and sizes are those of the record stays as it
    is. Nothing of a person's own is lost: a set that did not come from here is never touched, nor are files that were added.
    """
    section = params.inbox
    if not section.bucket:
        return []
    here = connect(params.storage, section.bucket, section.prefix, workspace.root)
    with alone(workspace.root, "the inbox", say):
        check(here)
        workspace.concepts.mkdir(parents=True, exist_ok=True)
        _finish(workspace.concepts)
        found = again(lambda: look(here))
        _forget(workspace.concepts, found.sets)
        arrivals = [Arrival(name, "failed", reason) for name, reason in found.refused.items()]
        gone = ""  # why the storage does not answer any more
        left = MOST_A_RUN
        with ThreadPoolExecutor(params.storage.jobs) as pool:
            taking = _Taking(workspace.concepts, here, found.now, section.quiet_seconds, pool)
            for name, objects in sorted(found.sets.items(), key=lambda item: (size_of(item[1]), item[0])):  # so that no big one delays many
                try:
                    if gone:
                        raise PipelineError(gone)
                    with naming(workspace.concepts):
                        arrival = _take(taking, name, objects, left)
                except (PipelineError, OSError) as error:
                    if isinstance(error, OSError) and error.errno in FULL:
                        raise
                    arrival = Arrival(name, "failed", str(error))
                    gone = gone or (str(error) if isinstance(error, StorageError) and not _answers(here) else "")
                if not arrival.reason and (passed := found.nested.get(name)):
                    arrival = replace(arrival, reason=f"{counted(passed)} in its subfolders ignored: {passed[0]}")
                arrivals.append(arrival)
                left -= arrival.bytes
        return sorted(arrivals, key=lambda arrival: arrival.set)


def _answers(here: Place) -> bool:
    try:
        check(here)
    except StorageError:
        return False
    return True


def _over(concepts: Path, objects: dict[str, Dropped], left: int) -> tuple[State, str] | None:
    """What becomes of a set that is not to be downloaded, and why; None for one that is. Raises OSError where the disk is full."""
    size, disk = size_of(objects), shutil.disk_usage(concepts)
    if len(objects) > MOST_FILES or size > MOST_BYTES:
        files = f"more than {MOST_FILES} files" if len(objects) > MOST_FILES else f"{size / GB:.1f} GB"
        most = f"a set has at most {MOST_FILES} files and {MOST_BYTES / GB:.0f} GB"
        return "failed", f"{files}: {most}. Leave out what is not a picture of it, or copy it to {concepts} by hand."
    room = disk.free - min(RESERVE, disk.total // 20)
    if room <= 0:
        raise OSError(errno.ENOSPC, "no room for what is in the inbox", str(concepts))
    if size > room:
        return "failed", f"{size / GB:.1f} GB, and {concepts} has room for {room / GB:.1f} GB. Make room there, or drop less."
    if size > left:
        return "waiting", f"this run has taken {MOST_A_RUN / GB:.0f} GB already; the next run takes it"
    return None


def _take(taking: _Taking, name: str, objects: dict[str, Dropped], left: int) -> Arrival:
    concepts, here = taking.concepts, taking.here
    target, stage = concepts / name, concepts / STAGE / name
    source = f"{here.url}/{name}"
    before = _taken(target)
    if target.exists() and before.get("source") != source:
        why = "did not come from this inbox" if before else "was put there by hand"
        return Arrival(name, "failed", f"{target} already exists and {why}; it is left as it is. Rename one of the two.")
    files = {file: [found.etag, found.size] for file, found in sorted(objects.items())}
    if before.get("files") == files:
        return Arrival(name, "unchanged")
    youngest = max(found.modified for found in objects.values())
    if (age := (taking.now - youngest).total_seconds()) < taking.quiet:
        return Arrival(name, "waiting", f"its newest file is {max(age, 0):.0f} s old, so more may be coming; the next run takes the set")
    if over := _over(concepts, objects, left):
        return Arrival(name, *over)
    (stage / "files").mkdir(parents=True, exist_ok=True)
    for path in (stage / "files").iterdir():
        if path.name not in files:
            path.unlink()

    def get(file: str) -> int:
        return _get(here, objects[file], stage / "files" / file, target / file, before, file)

    fetched = [size for size in taking.pool.map(get, files) if size >= 0]
    there = again(lambda: look(here, f"{name}/")).sets.get(name, {})
    if files != {file: [found.etag, found.size] for file, found in there.items()}:
        return Arrival(name, "waiting", "it changed while it was being downloaded; the next run takes it", len(fetched), sum(fetched))
    _keep_own(target, stage / "files", before, files)
    write_json(stage / "files" / RECORD, {"source": source, "files": files})
    _fsync(stage / "files")
    (stage / "files").rename(stage / "ready")
    _finish(concepts)
    return Arrival(name, "taken", "", len(fetched), sum(fetched))


def _get(here: Place, found: Dropped, path: Path, standing: Path, before: dict[str, Any], file: str) -> int:
    """Bring one picture; returns its bytes, -1 where it had not to be downloaded. Raises StorageError."""
    if _is(path, found):
        return -1
    if before.get("files", {}).get(file) == [found.etag, found.size] and standing.is_file():
        with atomic(path) as temporary:
            shutil.copyfile(standing, temporary)
        return -1
    for left in reversed(range(ROUNDS)):
        try:
            answer = here.client.get_object(Bucket=here.bucket, Key=found.key, IfMatch=found.etag)
            with atomic(path) as temporary, temporary.open("wb") as coming:
                for chunk in answer["Body"].iter_chunks(CHUNK):
                    coming.write(chunk)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["ResponseMetadata"].get("HTTPStatusCode") in (404, 412):
                raise PipelineError(f"{found.key} changed while the set was being downloaded; the next run takes it.") from None
            told = explain(error, here)
            if not left or not told.passing:
                raise told from None
            continue
        if _is(path, found) or (_whole_etag(found) is None and path.stat().st_size == found.size):
            return found.size
        path.unlink()
    raise PipelineError(f"{found.key}: the bytes received do not match its ETag. Upload it again.")


def _is(path: Path, found: Dropped) -> bool:
    """Whether the file has the object's bytes, so far as its ETag tells: one of a multipart upload does not."""
    digest = _whole_etag(found)
    if digest is None or not path.is_file() or path.stat().st_size != found.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == digest


def _whole_etag(found: Dropped) -> str | None:
    return found.etag if len(found.etag) == 32 and "-" not in found.etag else None


def _taken(folder: Path) -> dict[str, Any]:
    """The record of what was taken into a set; empty for one that did not come from an inbox."""
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _keep_own(target: Path, staged: Path, before: dict[str, Any], files: dict[str, Any]) -> None:
    """What people have added to the set here stays in it; what the inbox has dropped goes."""
    if not target.is_dir():
        return
    for path in sorted(target.iterdir()):
        if path.name in files or path.name in before.get("files", {}) or path.name == RECORD:
            continue
        if path.is_dir():
            shutil.copytree(path, staged / path.name, symlinks=True, dirs_exist_ok=True)
        elif not (staged / path.name).exists() or digest_file(path) != digest_file(staged / path.name):
            with atomic(staged / path.name) as temporary:
                shutil.copyfile(path, temporary)


def _forget(concepts: Path, sets: Iterable[str]) -> None:
    """Stages of sets that have gone from the inbox since a run was broken off."""
    for stage in (concepts / STAGE).glob("*"):
        if stage.name not in sets:
            shutil.rmtree(stage)


def _finish(concepts: Path) -> None:
    """Put every set that is completely staged in its place, also those of a run that was killed at any point of this."""
    for ready in sorted((concepts / STAGE).glob("*/ready")):
        target, old = concepts / ready.parent.name, ready.with_name("old")
        if target.exists():
            if old.exists():
                shutil.rmtree(old)
            target.rename(old)
        ready.rename(target)
        _fsync(concepts)
    for stage in (concepts / STAGE).glob("*"):
        if not (stage / "files").exists() and not (stage / "ready").exists():
            shutil.rmtree(stage)
    if (concepts / STAGE).is_dir() and not any((concepts / STAGE).iterdir()):
        (concepts / STAGE).rmdir()


def _fsync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
