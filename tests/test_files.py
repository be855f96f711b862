"""Files are there whole or not at all."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ti_pipeline import files


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "table.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), files.atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "a": 1\n}\n' and list(tmp_path.iterdir()) == [path]


def test_what_is_written_has_the_rights_that_the_umask_leaves(tmp_path: Path):
    code = "import sys; from pathlib import Path; from ti_pipeline.files import write_text; write_text(Path(sys.argv[1]), 'x')"
    for umask, mode in ((0o077, 0o600), (0o002, 0o664)):
        subprocess.run([sys.executable, "-c", code, tmp_path / "x"], umask=umask, check=True)
        assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_tables_keep_their_schema_and_metadata_in_a_folder_that_looks_like_a_partition(tmp_path: Path):
    path = tmp_path / "key=value" / "rows.parquet"
    files.write_table(path, [{"n": 1}], pa.schema([pa.field("n", pa.int32())]), {"fingerprint": "abc"})
    assert files.read_table(path) == [{"n": 1}] and files.table_metadata(path) == {"fingerprint": "abc"}


def test_what_is_no_table_has_no_metadata(tmp_path: Path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1 but no more")
    assert files.table_metadata(tmp_path / "x.parquet") == {} == files.table_metadata(tmp_path / "none.parquet")


def test_equal_values_have_equal_digests_in_any_order():
    assert files.digest_value({"a": 1, "b": [2]}) == files.digest_value({"b": [2], "a": 1}) != files.digest_value({"a": 1, "b": [3]})
