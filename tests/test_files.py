"""Files are there whole or not at all."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

from ti_pipeline import files
from ti_pipeline.errors import in_words
from ti_pipeline.stages.turns import turn
from ti_pipeline.workspace import Workspace


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "table.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "a": 1\n}\n' and list(tmp_path.iterdir()) == [path]


def test_tables_keep_their_schema_and_metadata_in_a_folder_that_looks_like_a_partition(tmp_path: Path):
    path = tmp_path / "key=value" / "rows.parquet"
    files.write_table(path, [{"n": 1}], pa.schema([pa.field("n", pa.int32())]), {"fingerprint": "abc"})
    assert files.read_table(path) == [{"n": 1}] and files.table_metadata(path) == {"fingerprint": "abc"}


def test_what_is_no_table_has_no_metadata(tmp_path: Path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    assert files.table_metadata(tmp_path / "x.parquet") == {} == files.table_metadata(tmp_path / "none.parquet")


def test_equal_values_have_equal_digests_in_any_order():
    assert files.digest_value({"a": 1, "b": [2]}) == files.digest_value({"b": [2], "a": 1}) != files.digest_value({"a": 1, "b": [3]})


@pytest.mark.parametrize(("umask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        files.write_json(tmp_path / "a.json", {})
        files.write_table(tmp_path / "a.parquet", [{"n": 1}], pa.schema([pa.field("n", pa.int32())]), {})
        with turn(Workspace.at(tmp_path, "."), "rank", ["fox"]):
            held = list((tmp_path / "artifacts" / "locks").iterdir())
            modes = {path.stat().st_mode & 0o777 for path in (*held, *tmp_path.glob("a.*"))}
    finally:
        os.umask(before)
    assert len(held) == 2 and modes == {mode}


def test_a_disk_that_takes_no_more_is_told_with_the_file(tmp_path: Path):
    """A limit on the size of files stands for a full disk: the kernel refuses the write, and names no file either."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError) as refused:
            files.write_text(tmp_path / "a.json", "a" * 1000)
        with pytest.raises(OSError) as table:
            files.write_table(tmp_path / "a.parquet", [{"n": 1}] * 1000, pa.schema([pa.field("n", pa.int32())]), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert in_words(refused.value) == f"{tmp_path / 'a.json'}: File too large."
    assert in_words(table.value).startswith(f"{tmp_path / 'a.parquet'}: ") and list(tmp_path.iterdir()) == []


def test_what_the_system_refuses_is_told_with_what_to_do():
    assert in_words(OSError(errno.ENOSPC, "No space left on device", "/a/b")) == "/a/b: No space left on device. Make room there."
    assert in_words(PermissionError(errno.EACCES, "Permission denied", "/a/b")) == "/a/b: Permission denied. Check the permissions there."
    nameless = in_words(OSError(errno.ENOSPC, "No space left on device"))
    assert all(place in nameless for place in (tempfile.gettempdir(), str(Path.home()), "TMPDIR", "HOME", "Make room"))
    nowhere = in_words(FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/full', '/tmp']"))
    assert nowhere.startswith("No usable temporary directory found in ['/full', '/tmp']. Make room in one of them, or set TMPDIR")
    assert in_words(OSError("broken")) == "broken."
