"""DVC's objects between cache and bucket, where and as DVC lays them out, with every digest checked on the way in both directions.

By our own client: DVC's S3 file system takes several times as long for many small files, drops a damaged object without a word,
and takes a folder's listing in the remote for proof that its files are there.
"""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from ti_pipeline.versioning.storage import Place, StorageError, again, check, explain, explained

ROUNDS = 8  # over what did not come across
IDLE = 2  # rounds without any success before it is given up
STREAMS = 3  # attempts at one object whose bytes break off, which the client does not repeat itself
CHUNK = 1 << 20
PAGES = (1000, 100, 10, 10, 10)  # entries of a listing's page at each try: a connection may break within every long answer
READ_ONLY = 0o444  # as DVC keeps its cache


class Absent(Exception):
    """The bucket does not have the object."""


class Damaged(Exception):
    """The object's bytes do not have its digest."""


def name(oid: str) -> str:
    return f"files/md5/{oid[:2]}/{oid[2:]}"


def present(here: Place, wanted: set[str], jobs: int) -> set[str]:
    """Which of the objects the bucket has: from a listing, or one by one where there are far more others. Raises StorageError."""

    sizes = iter(PAGES)

    def ask() -> set[str]:
        with explained(here):
            return _present(here, wanted, jobs, next(sizes))

    return again(ask)


def _present(here: Place, wanted: set[str], jobs: int, size: int) -> set[str]:
    start, found = here.key("files/md5/"), set()
    pages = here.client.get_paginator("list_objects_v2").paginate(Bucket=here.bucket, Prefix=start, PaginationConfig={"PageSize": size})
    for number, page in enumerate(pages):
        found |= {entry["Key"].removeprefix(start).replace("/", "", 1) for entry in page.get("Contents", [])}
        if number > (20 + len(wanted) // 50) * PAGES[0] // size:
            break
    else:
        return found & wanted
    with ThreadPoolExecutor(jobs) as pool:
        rest = sorted(wanted - found)
        return (found & wanted) | {oid for oid, there in zip(rest, pool.map(lambda oid: _there(here, oid), rest), strict=True) if there}


def _there(here: Place, oid: str) -> bool:
    try:
        here.client.head_object(Bucket=here.bucket, Key=here.key(name(oid)))
    except ClientError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode") == 404:
            return False
        raise
    return True


def put(here: Place, oid: str, path: Path) -> None:
    """The server refuses bytes that do not have the digest."""
    digest = base64.b64encode(bytes.fromhex(oid.split(".")[0])).decode()
    with path.open("rb") as body:
        here.client.put_object(Bucket=here.bucket, Key=here.key(name(oid)), Body=body, ContentMD5=digest)


def get(here: Place, oid: str, path: Path) -> None:
    """Bring an object to `path`, whole and with its digest or not at all. Raises Absent and Damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in reversed(range(STREAMS)):
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".pulled", dir=path.parent)
        try:
            digest = hashlib.md5(usedforsecurity=False)
            with os.fdopen(handle, "wb") as file:
                for chunk in here.client.get_object(Bucket=here.bucket, Key=here.key(name(oid)))["Body"].iter_chunks(CHUNK):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != oid.split(".")[0]:
                raise Damaged
            os.chmod(temporary, READ_ONLY)
            os.replace(temporary, path)
            return
        except ClientError as error:
            if error.response["Error"].get("Code") == "NoSuchKey":
                raise Absent from None
            raise
        except BotoCoreError:
            if not left:
                raise
        finally:
            Path(temporary).unlink(missing_ok=True)


def carry(here: Place, oids: Iterable[str], jobs: int, work: Callable[[str], None]) -> dict[str, Exception]:
    """Do `work` for every object, again what fails; returns those that are absent or damaged.

    Raises StorageError for anything else that stays; what has come across is kept.
    """
    left = set(oids)
    wanted, idle = len(left), 0
    lost: dict[str, Exception] = {}
    twice: set[str] = set()
    for _ in range(ROUNDS):
        before = len(left)
        broken: list[Exception] = []

        def attempt(oid: str, broken: list[Exception] = broken) -> Exception | None:
            if broken:
                return broken[0]  # is the server still there? that is asked once, and not by every object
            try:
                work(oid)
            except (Absent, Damaged) as error:
                return error
            except (BotoCoreError, ClientError) as error:
                broken.append(error)
                return error
            return None

        with ThreadPoolExecutor(jobs) as pool:
            for oid, why in zip(order := sorted(left), pool.map(attempt, order), strict=True):
                if why is None or isinstance(why, Absent) or (isinstance(why, Damaged) and oid in twice):
                    left.discard(oid)
                    lost |= {oid: why} if why else {}
                elif isinstance(why, Damaged):
                    twice.add(oid)
        if not left:
            return lost
        if broken:
            check(here)
        idle = idle + 1 if len(left) == before and broken else 0
        if idle == IDLE:
            break
    told = explain(broken[0], here) if broken else StorageError(f"{here}: {len(left)} objects did not arrive.", passing=True)
    raise StorageError(f"{told} {wanted - len(left)} of {wanted} objects have arrived.", passing=told.passing)
