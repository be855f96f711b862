"""The server that a run has for itself, and what is left of it when the run is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import prefect_server
from tests.flows.processes import ROOT, answers, started, wait_for

STOPPED = "Stopped. What is finished stands; the same command goes on from there.\n"


def alone(home: Path) -> dict[str, str]:
    """The environment of a process that has no server set."""
    return {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"} | {"PREFECT_HOME": str(home)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture()
def not_deaf() -> Iterator[None]:
    """What a shell starts in the background hands on that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("not_deaf")
@pytest.mark.parametrize(
    ("number", "status", "end"), [(signal.SIGINT, 130, STOPPED), (signal.SIGTERM, -15, ""), (signal.SIGKILL, -9, "")], ids=str
)
def test_a_run_that_is_stopped_ends_at_once_and_its_server_with_it(number, status, end, home: Path, tmp_path: Path) -> None:
    """The signal goes to the group, as a terminal's Ctrl-C and the SIGTERM of `timeout` and systemd do."""
    command = [sys.executable, "-m", "flows.commands", "run", "fox", "--workspace", str(tmp_path), "--params", "params.yaml"]
    command += ["--set", f"concepts.folder={ROOT / 'examples' / 'concepts'}", "--set", "train.steps=100000"]
    log = tmp_path / "run.log"
    with started(command, log, alone(home)) as process:
        wait_for(lambda: "validate: 1 done" in log.read_text(), process, log)
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())
        assert answers(f"{address}/api/health")
        os.killpg(process.pid, number)
        assert process.wait(60) == status  # it was two and a half minutes when the server ended first
        told = log.read_text()
        assert told.endswith(end) and "Traceback" not in told and "fault of" not in told
        until = time.monotonic() + 60
        while answers(f"{address}/api/health"):
            assert time.monotonic() < until, "the server outlived its run"
            time.sleep(0.2)


def test_a_server_that_is_set_is_used(server, capfd) -> None:
    with prefect_server():
        pass
    assert "Starting a server" not in "".join(capfd.readouterr())


@pytest.mark.slow
def test_a_server_that_cannot_start_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "prefect.db").write_text("no database")
    code = "from flows.server import prefect_server\nwith prefect_server(): pass"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=alone(tmp_path), capture_output=True, text=True)
    assert done.returncode == 1 and "file is not a database" in done.stderr and "Fatal" not in done.stderr
    assert "PipelineError: Prefect's server did not start" in done.stderr.splitlines()[-1]
