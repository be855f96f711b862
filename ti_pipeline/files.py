"""Files that are there whole or not at all, and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary name in `path`'s folder to write to; flushed and renamed to `path` when the block ends well.

    The file has the mode that the umask and the folder give a new one. An OSError that names no file is given this one's name.
    """
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")  # `leftovers` knows such a name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Sorted and indented, so that equal values are equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_table(path: Path, rows: list[dict], schema: pa.Schema, metadata: Mapping[str, str]) -> None:
    """Rows as Parquet under a declared schema; `metadata` goes into the file's own."""
    table = pa.Table.from_pylist(rows, schema=schema.with_metadata(dict(metadata)))
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: Path) -> list[dict]:
    with pq.ParquetFile(path) as file:  # pq.read_table takes a folder named `key=value` above it for a column
        return file.read().to_pylist()


def table_metadata(path: Path) -> dict[str, str]:
    """The file's own metadata; empty when the file does not exist or is not Parquet."""
    try:
        stored = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return {}
    return {key.decode(): value.decode() for key, value in stored.items() if not key.startswith(b"ARROW:")}


def digest_file(path: Path) -> str:
    """SHA-256 of the bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_value(value: Any) -> str:
    """SHA-256 of a JSON value in one canonical spelling, hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
