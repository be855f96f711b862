"""A run of the tests says at its end what it has left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPING = """
import pytest

@pytest.mark.parametrize("n", range(3))
def test_page(n):
    pytest.skip("no browser. Install one")

@pytest.mark.skipif(True, reason="no GPU")
def test_gpu(): ...

def test_all_else(): ...
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_skipped_is_counted_by_its_reason(tmp_path: Path, workers: int):
    (tmp_path / "test_some.py").write_text(SKIPPING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-n", str(workers), "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    start = next(at for at, line in enumerate(lines) if "not tested on this machine" in line)
    assert sorted(lines[start + 1 : start + 3]) == ["1 test: no GPU", "3 tests: no browser. Install one"]
