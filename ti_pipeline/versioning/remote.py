"""DVC's objects between the cache and the S3 remote: nothing counts as pushed or pulled that is not there and whole."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.config import ConfigError as DvcConfigError
from dvc_data.hashfile.hash_info import HashInfo
from dvc_objects.errors import ObjectFormatError
from dvc_objects.fs.generic import transfer

from ti_pipeline.errors import PipelineError
from ti_pipeline.versioning import objects
from ti_pipeline.versioning.disk import naming, refusal
from ti_pipeline.versioning.lock import dvc_folder
from ti_pipeline.versioning.repository import Recorded
from ti_pipeline.versioning.settings import Storage
from ti_pipeline.versioning.storage import CONNECT_SECONDS, READ_SECONDS, REMOTE, Place, check, connect

_PULLED = re.compile(r"\..+\.pulled")


@dataclass(frozen=True)
class Transfer:
    """What went across: objects, and bytes as they lie in the cache."""

    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Pulled(Transfer):
    """`lost` {path in the workspace: why}: what is not there as it was recorded; everything else is."""

    lost: dict[str, str] = field(default_factory=dict)


def place(root: Path, storage: Storage) -> Place:
    """Where DVC's objects lie. Raises PipelineError where no bucket is set."""
    if not storage.bucket:
        raise PipelineError("storage.bucket: none is set in params.yaml, so nothing can be pushed or pulled.")
    return connect(storage, storage.bucket, storage.prefix, root)


def point(root: Path, storage: Storage) -> None:
    """Write the settings into `.dvc/config.local`, so that `dvc push`, `dvc pull` and `dvc status -c` go to the same place."""
    folder = dvc_folder(root) or root / ".dvc"
    wanted: dict[str, Any] = {"url": f"s3://{storage.bucket}/{storage.prefix.strip('/')}".rstrip("/"), "jobs": storage.jobs}
    wanted |= {"endpointurl": storage.endpoint, "region": storage.region, "connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
    try:
        config = Config(str(folder))
        local = config.load_one("local") if (folder / "config.local").exists() else {}
        section = dict(local.get("remote", {}).get(REMOTE, {}))
        new = {key: value for key, value in (section | wanted).items() if value is not None}
        if not storage.endpoint:
            new.pop("endpointurl", None)
        if new == section and local.get("core", {}).get("remote") == REMOTE:
            return
        with config.edit("local") as edited:
            edited["remote"][REMOTE] = new
            edited["core"]["remote"] = REMOTE
        (folder / "config.local").chmod(0o600)  # it may hold a secret
    except (DvcConfigError, OSError) as error:
        raise PipelineError(f".dvc/config.local: {error}. Correct or remove the file.") from None


def push(repo: Recorded, here: Place, storage: Storage) -> Transfer:
    """Bring every object of the current record to the remote. Raises StorageError; what has arrived is kept.

    A folder's listing goes after all of its files, so that a listing in the remote is a promise that is kept.
    """
    check(here)
    near = repo.cache.local
    folders, files = _objects(repo)
    wanted = set(folders) | set(files)
    missing = wanted - objects.present(here, wanted, storage.jobs)
    absent = [oid for oid in missing if not _whole(near, oid)]
    if absent:
        names = ", ".join(sorted((files | folders)[oid] for oid in absent)[:5])
        raise PipelineError(f"{len(absent)} objects are neither in DVC's cache nor in {here}: {names}. Push them from where they are.")
    for group in (missing & set(files), missing - set(files)):
        objects.carry(here, group, storage.jobs, lambda oid: objects.put(here, oid, Path(near.oid_to_path(oid))))
    return Transfer(len(missing), sum(near.fs.size(near.oid_to_path(oid)) for oid in missing))


def check_kept(repo: Recorded, done: Collection[str]) -> None:
    """Raise OSError, as for a full disk, or PipelineError where DVC's cache lacks something of these stages and image sets.

    DVC only logs when a copy into its cache fails, and still writes its record.
    """
    near = repo.cache.local
    for out in repo.ours:
        if getattr(out.stage, "name", None) not in done and _name(repo, out) not in done:
            continue
        whole = near.exists(out.hash_info.value)
        if whole and out.hash_info.isdir:
            whole = all(near.exists(info.value) for _, _, info in _tree(near, out))
        if whole:
            continue
        if refused := next(filter(None, map(refusal, repo.heard)), None):
            raise OSError(refused.errno, refused.strerror, near.path)
        raise PipelineError(f"DVC has not kept all of {out} in its cache {near.path}. Run this again.")


def pull(repo: Recorded, here: Place, storage: Storage, below: Iterable[str] = ()) -> Pulled:
    """Bring what the current record names into the cache; every byte is checked against its digest.

    `below` are paths relative to the workspace; without any, all. Raises StorageError when the storage is not there.
    """
    check(here)
    near = repo.cache.local
    listings = {out.hash_info.value: _name(repo, out) for out in repo.ours if out.hash_info.isdir}
    bad: dict[str, str] = {}
    brought = _fetch(repo, listings, here, storage, bad)
    _, files = _objects(repo, skip=bad)
    chosen = {oid: name for oid, name in files.items() if _below(name, below)}
    brought |= _fetch(repo, chosen, here, storage, bad)
    sizes = sum(near.fs.size(near.oid_to_path(oid)) for oid in brought)
    names = listings | chosen
    return Pulled(len(brought), sizes, {names[oid]: reason for oid, reason in sorted(bad.items(), key=lambda item: names[item[0]])})


def restore(repo: Recorded, lost: Iterable[str], below: Iterable[str] = ()) -> int:
    """Write the recorded files into the workspace, all but the lost ones; returns how many were written.

    DVC's own checkout takes a whole folder away when one of its files is lost. Files that the record does not name are kept
    when DVC does not know their content, else removed.
    """
    lost, written = set(lost), 0
    root, near = repo.workspace, repo.cache.local
    for out in repo.ours:
        name = _name(repo, out)
        if name in lost:
            continue
        whole = Path(out.fs_path)
        if out.hash_info.isdir:
            tree = _tree(near, out)
            wanted = {whole.joinpath(*key): info.value for key, _, info in tree}
        else:
            wanted = {whole: out.hash_info.value}
        wanted = {path: oid for path, oid in wanted.items() if _below(path.relative_to(root).as_posix(), below)}
        for path, oid in wanted.items():
            relative = path.relative_to(root).as_posix()
            if _digest(repo, path) == oid:
                continue
            if relative in lost:
                _drop(repo, path)
                continue
            _bring_out(repo, oid, path)
            written += 1
        if out.hash_info.isdir and whole.is_dir():
            for path in [path for path in whole.rglob("*") if path.is_file() and path not in wanted]:
                if _PULLED.fullmatch(path.name):
                    path.unlink()  # of a process that was killed: one at a time pulls
                elif _below(path.relative_to(root).as_posix(), below) and not repo.dvcignore.is_ignored_file(str(path)):
                    _drop(repo, path)
    return written


def _objects(repo: Recorded, skip: Iterable[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
    """Of the current record {oid: path}: the folders' listings, and all files."""
    folders: dict[str, str] = {}
    files: dict[str, str] = {}
    for out in repo.ours:
        if out.hash_info.value in skip:
            continue
        name = _name(repo, out)
        if not out.hash_info.isdir:
            files[out.hash_info.value] = name
            continue
        folders[out.hash_info.value] = name
        for key, _, info in _tree(repo.cache.local, out):
            files.setdefault(info.value, "/".join((name, *key)))
    return folders, files


def _tree(near: Any, out: Any) -> Any:
    from dvc_data.hashfile.tree import Tree

    try:
        return Tree.load(near, out.hash_info)
    except (FileNotFoundError, ObjectFormatError):
        raise PipelineError(f"{out}: the listing of this folder is not in DVC's cache. Pull first, or run the stage again.") from None


def _fetch(repo: Recorded, wanted: dict[str, str], here: Place, storage: Storage, bad: dict[str, str]) -> set[str]:
    """Into the cache what is not whole there; what cannot be had goes to `bad` with its reason."""
    near = repo.cache.local
    missing = {oid for oid in wanted if not _whole(near, oid)}

    def bring(oid: str) -> None:
        path = near.oid_to_path(oid)
        with naming(Path(path).parent):
            objects.get(here, oid, Path(path))
        near.state.save(path, near.fs, HashInfo("md5", oid))

    lost = objects.carry(here, missing, storage.jobs, bring)
    for oid, error in lost.items():
        where = f"{here.url}/{objects.name(oid)}"
        if isinstance(error, objects.Absent):
            bad[oid] = f"{where} is not there. Push it from a machine that has it."
        else:
            bad[oid] = f"{where} is damaged: its bytes do not match its digest. Remove it there and push it from a machine that has it."
    return missing - lost.keys()


def _whole(near: Any, oid: str) -> bool:
    """Whether the cache has the object with its own bytes; one that is damaged is removed."""
    try:
        near.check(oid, check_hash=True)
    except (FileNotFoundError, ObjectFormatError):
        return False
    return True


def _digest(repo: Recorded, path: Path) -> str:
    from dvc_data.hashfile.hash import hash_file

    if not path.is_file():
        return ""
    return hash_file(str(path), repo.fs, "md5", repo.state)[1].value or ""


def _bring_out(repo: Recorded, oid: str, path: Path) -> None:
    """Put an object in its place, as `cache.type` says: whole or not at all, and never through a link that is there.

    Without waiting for the disk: the cache has it, and the same call brings it again.
    """
    near = repo.cache.local
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.pulled")
    temporary.unlink(missing_ok=True)
    with naming(path):
        if {"symlink", "hardlink"} & set(near.cache_types):
            transfer(near.fs, near.oid_to_path(oid), repo.fs, str(temporary), links=list(near.cache_types))
        else:
            shutil.copyfile(near.oid_to_path(oid), temporary)
        os.replace(temporary, path)
    repo.state.save(str(path), repo.fs, HashInfo("md5", oid))


def _drop(repo: Recorded, path: Path) -> None:
    """Remove a file whose content the cache has; anything else may be somebody's only copy."""
    if path.is_file() and _whole(repo.cache.local, _digest(repo, path)):
        path.unlink()


def _below(name: str, places: Iterable[str]) -> bool:
    places = tuple(places)
    return not places or any(name == place or name.startswith(f"{place.rstrip('/')}/") for place in places)


def _name(repo: Recorded, out: Any) -> str:
    return Path(out.fs_path).relative_to(repo.workspace).as_posix()


def recorded(repo: Recorded, below: Iterable[str] = ()) -> dict[str, str]:
    """{path: MD5} of every file of the current record, or of those below the paths; the listings must be in the cache."""
    found: dict[str, str] = {}
    for out in repo.ours:
        name = _name(repo, out)
        if not any(_below(name, [place]) or _below(place, [name]) for place in below or [name]):
            continue
        files = {name: out.hash_info.value}
        if out.hash_info.isdir:
            files = {"/".join((name, *key)): info.value for key, _, info in _tree(repo.cache.local, out)}
        found |= {path: digest for path, digest in files.items() if _below(path, below)}
    return found


def unlike(repo: Recorded, files: Mapping[str, Path]) -> list[str]:
    """The names, relative to the workspace, of those files that are not in the current record or differ from it."""
    known = recorded(repo, {"/".join(name.split("/")[:2]) for name in files})
    return [name for name, path in files.items() if known.get(name) != _digest(repo, path)]
