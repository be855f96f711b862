"""What is in the inbox: the sets, and what is not a set, with the reason."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sized
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from typing import Any

from ti_pipeline.concepts.folder import passed_over
from ti_pipeline.versioning.storage import Place, explained

MOST_FILES = 1000  # of a set; of a larger one no more than one beyond is kept
_NOTES = (".txt", ".md")  # beside the sets, for the people who drop them


@dataclass(frozen=True)
class Dropped:
    """A file in the bucket; `size` in bytes."""

    key: str
    etag: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Found:
    """`sets` {set: {file: object}}; `nested` {set: names in its subfolders}; `refused` {set: why}; `now` by the server's clock."""

    sets: dict[str, dict[str, Dropped]]
    nested: dict[str, list[str]]
    refused: dict[str, str]
    now: datetime


def look(here: Place, only: str = "") -> Found:
    """List the inbox, or below `only`, a set's name and a slash. Raises StorageError."""
    sets: dict[str, dict[str, Dropped]] = defaultdict(dict)
    nested: dict[str, list[str]] = defaultdict(list)
    refused: dict[str, str] = {}
    loose: list[str] = []
    start, now = here.key(only) if only else (f"{here.prefix}/" if here.prefix else ""), None
    with explained(here):
        for page in here.client.get_paginator("list_objects_v2").paginate(Bucket=here.bucket, Prefix=start):
            now = now or _clock(page)
            for entry in page.get("Contents", []):
                folder, slash, name = entry["Key"].removeprefix(here.key("")).partition("/")
                if not folder or entry["Key"].endswith("/") or any(passed_over(part) for part in (folder, *name.split("/"))):
                    continue  # a folder's own marker, or what file managers leave behind
                if not slash:
                    loose.append(folder)
                elif reason := _unsafe(folder) or _unsafe(name.rsplit("/", 1)[-1]):
                    refused[_spelt(folder)] = f"{entry['Key']!r}: {reason}"
                elif "/" in name:
                    nested[folder].append(name)
                elif len(sets[folder]) <= MOST_FILES:
                    sets[folder][name] = Dropped(entry["Key"], entry["ETag"].strip('"'), entry["Size"], entry["LastModified"])
    for folder in nested.keys() - sets.keys() - refused.keys():
        why = f"no pictures in the folder itself, {counted(nested[folder])} in its subfolders"
        refused[folder] = f"{why}: {_spelt(nested[folder][0])}. Put them into {folder}/ itself."
    if loose := [name for name in loose if PurePosixPath(name).suffix.lower() not in _NOTES]:
        shown = ", ".join(map(_spelt, loose[:3]))
        refused[here.url] = f"{counted(loose)} beside the sets: {shown}. Put what belongs together into a folder: that is a set."
    return Found({name: objects for name, objects in sets.items() if name not in refused}, nested, refused, now or datetime.now(UTC))


def counted(files: Sized) -> str:
    return f"{len(files)} file{'s' * (len(files) != 1)}"


def size_of(objects: dict[str, Dropped]) -> int:
    """Bytes of all of a set."""
    return sum(found.size for found in objects.values())


def _clock(page: dict[str, Any]) -> datetime | None:
    date = page["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(date) if date else None


def _unsafe(name: str) -> str:
    """Why a name of the bucket cannot be one of this file system; a key may hold anything."""
    if name in (".", "..") or any(sign in name for sign in "\\\0\r\n") or len(os.fsencode(name)) > 200:
        return "a name that no folder can have. Rename it in the inbox."
    return ""


def _spelt(name: str) -> str:
    return name.encode("unicode_escape").decode()
