"""A disk that takes no more: the place is named, the status is 3, and the next run mends it. Here it is the kernel's limit on files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.versioning.small import ROOT, content, digests, write
from tests.versioning.test_record import dvc

LIMIT = 2_000_000  # bytes of a file: more than DVC's own tables, less than a large picture
_RUN = """import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from ti_pipeline.cli import main
main()
"""


@pytest.fixture()
def root(repository: Path, params, bucket) -> Path:
    path = repository / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["storage"] |= params.storage.model_dump()
    tree["inbox"] |= {"bucket": bucket, "prefix": "drop", "quiet_seconds": 0}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    write(repository / "artifacts" / "candidates" / "fern" / "large.png", content("large", 3 * LIMIT))
    return repository


def call(root: Path, limit: int, *words: str) -> tuple[int, str]:
    command = [sys.executable, "-c", _RUN, str(limit), *words, "--workspace", str(root)]
    ran = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert "Traceback" not in ran.stderr, ran.stderr[-1500:]
    return ran.returncode, ran.stdout + ran.stderr


def test_recording_pulling_and_the_inbox_name_the_place(root, admin, bucket) -> None:
    cache = root / ".dvc" / "cache" / "files" / "md5"
    status, said = call(root, LIMIT, "record", "--force")
    assert status == 3 and f"{cache}: File too large" in said  # DVC itself says nothing
    assert call(root, 10 * LIMIT, "record", "--force")[0] == 0 and "up to date" in dvc(root, "status")

    before = digests(root, "artifacts", "data/concepts")
    for folder in (root / ".dvc" / "cache", root / "artifacts" / "candidates"):
        shutil.rmtree(folder)
    status, said = call(root, LIMIT, "pull")
    assert status == 3 and f"{cache}/" in said and "File too large" in said
    assert call(root, 10 * LIMIT, "pull")[0] == 0 and digests(root, "artifacts", "data/concepts") == before

    admin.put_object(Bucket=bucket, Key="drop/new/0.png", Body=content("new", 3 * LIMIT))
    status, said = call(root, LIMIT, "inbox")
    assert status == 1 and f"File too large: '{root / 'data' / 'concepts'}" in said
    assert call(root, 10 * LIMIT, "inbox") == (0, "new: taken, 1 files\n")
