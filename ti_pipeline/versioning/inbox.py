"""The inbox: folders of pictures that people drop into a bucket become image sets of the workspace.

A set is staged in `.inbox/` beside the sets, checked, and put in its place by two renames; the record of what was taken lies
in the set itself, so that pictures and record are there together or not at all. A killed run is carried on from the stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from ti_pipeline.concepts.folder import passed_over
from ti_pipeline.errors import PipelineError
from ti_pipeline.files import atomic, digest_file, write_json
from ti_pipeline.params import Params
from ti_pipeline.versioning.lock import alone
from ti_pipeline.versioning.storage import Place, StorageError, again, check, connect, explain, explained
from ti_pipeline.workspace import Workspace

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
class _Object:
    key: str
    etag: str
    size: int
    modified: datetime


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
        sets, refused, now = again(lambda: _list(here))
        arrivals = [Arrival(name, "failed", reason) for name, reason in refused.items()]
        gone = ""  # why the storage does not answer any more
        with ThreadPoolExecutor(params.storage.jobs) as pool:
            for name, objects in sorted(sets.items()):
                try:
                    if gone:
                        raise PipelineError(gone)
                    arrivals.append(_take(workspace.concepts, here, name, objects, now, section.quiet_seconds, pool))
                except (PipelineError, OSError) as error:
                    arrivals.append(Arrival(name, "failed", str(error)))
                    gone = gone or (str(error) if isinstance(error, StorageError) and not _answers(here) else "")
        return sorted(arrivals, key=lambda arrival: arrival.set)


def _answers(here: Place) -> bool:
    try:
        check(here)
    except StorageError:
        return False
    return True


def _list(here: Place, only: str = "") -> tuple[dict[str, dict[str, _Object]], dict[str, str], datetime]:
    """{set: {file: object}}, {set: why it is refused}, and the time by the server's clock."""
    sets: dict[str, dict[str, _Object]] = defaultdict(dict)
    refused: dict[str, str] = {}
    start, now = here.key(only) if only else (f"{here.prefix}/" if here.prefix else ""), None
    with explained(here):
        for page in here.client.get_paginator("list_objects_v2").paginate(Bucket=here.bucket, Prefix=start):
            now = now or _clock(page)
            for entry in page.get("Contents", []):
                folder, _, name = entry["Key"].removeprefix(here.key("")).partition("/")
                if not name or name.endswith("/") or passed_over(folder) or any(passed_over(part) for part in name.split("/")):
                    continue  # a file beside the sets, a folder's own marker, or what file managers leave behind
                if "/" in name:
                    continue  # folders within a set are passed over, as `validate` does
                if reason := _unsafe(folder) or _unsafe(name):
                    refused[folder.encode("unicode_escape").decode()] = f"{entry['Key']!r}: {reason}"
                    continue
                sets[folder][name] = _Object(entry["Key"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])
    return {name: objects for name, objects in sets.items() if name not in refused}, refused, now or datetime.now().astimezone()


def _clock(page: dict[str, Any]) -> datetime | None:
    date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else None


def _unsafe(name: str) -> str:
    """Why a name of the bucket cannot be one of this file system; a key may hold anything."""
    if name in (".", "..") or any(sign in name for sign in "\\\0\r\n") or len(os.fsencode(name)) > 200:
        return "a name that no folder can have. Rename it in the inbox."
    return ""


def _take(
    concepts: Path, here: Place, name: str, objects: dict[str, _Object], now: datetime, quiet: int, pool: ThreadPoolExecutor
) -> Arrival:
    target, stage = concepts / name, concepts / STAGE / name
    source = f"{here.url}/{name}"
    before = _taken(target)
    if target.exists() and before.get("source") != source:
        why = "did not come from this inbox" if before else "was put there by hand"
        return Arrival(name, "failed", f"{target} is there already and {why}; it is left as it is. Rename one of the two.")
    files = {file: [found.etag, found.size] for file, found in sorted(objects.items())}
    if before.get("files") == files:
        return Arrival(name, "unchanged")
    youngest = max(found.modified for found in objects.values())
    if (age := (now - youngest).total_seconds()) < quiet:
        return Arrival(name, "waiting", f"a file is {max(age, 0):.0f} s old and may not be the last; the next run takes the set")
    (stage / "files").mkdir(parents=True, exist_ok=True)
    for path in (stage / "files").iterdir():
        if path.name not in files:
            path.unlink()

    def get(file: str) -> int:
        return _get(here, objects[file], stage / "files" / file, target / file, before, file)

    fetched = [size for size in pool.map(get, files) if size >= 0]
    there = again(lambda: _list(here, f"{name}/"))[0].get(name, {})
    if files != {file: [found.etag, found.size] for file, found in there.items()}:
        return Arrival(name, "waiting", "it has changed while it was downloaded; the next run takes it", len(fetched), sum(fetched))
    _keep_own(target, stage / "files", before, files)
    write_json(stage / "files" / RECORD, {"source": source, "files": files})
    _fsync(stage / "files")
    (stage / "files").rename(stage / "ready")
    _finish(concepts)
    return Arrival(name, "taken", "", len(fetched), sum(fetched))


def _get(here: Place, found: _Object, path: Path, standing: Path, before: dict[str, Any], file: str) -> int:
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
            data = answer["Body"].read()
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["ResponseMetadata"].get("HTTPStatusCode") in (404, 412):
                raise PipelineError(f"{found.key} has changed while the set was downloaded; the next run takes it.") from None
            told = explain(error, here)
            if not left or not told.passing:
                raise told from None
            continue
        with atomic(path) as temporary:
            temporary.write_bytes(data)
        if _is(path, found) or (_whole_etag(found) is None and len(data) == found.size):
            return len(data)
        path.unlink()
    raise PipelineError(f"{found.key}: what comes has other bytes than its ETag says. Upload it again.")


def _is(path: Path, found: _Object) -> bool:
    """Whether the file has the object's bytes, so far as its ETag tells: one of a multipart upload does not."""
    digest = _whole_etag(found)
    if digest is None or not path.is_file() or path.stat().st_size != found.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == digest


def _whole_etag(found: _Object) -> str | None:
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
