"""The server that a run has for itself, and what is left of it when the run is stopped."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from flows.server import prefect_server
from tests.flows.processes import ROOT, answers, started, wait_for
from ti_pipeline.terminal import STOPPED

HOSTILE = {
    "HOME": "/proc/nowhere", "http_proxy": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": "",
    "PREFECT_API_AUTH_STRING": "a:b", "PREFECT_SERVER_API_AUTH_STRING": "c:d", "PREFECT_API_KEY": "none",
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////proc/nowhere/prefect.db",
}  # fmt: skip


def alone(**other: str) -> dict[str, str]:
    """The environment of a process that has no server set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | other


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, for a new database takes its time; what a URL takes for its own is in the name."""
    folder = tmp_path_factory.mktemp("flows") / "a?b#c%20d"
    folder.mkdir()
    return folder


@pytest.fixture()
def not_deaf() -> Iterator[None]:
    """What a shell starts in the background hands on that SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def command(workspace: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "flows.commands", "run", "fox", "--workspace", str(workspace), "--params", "params.yaml",
            "--set", f"concepts.folder={ROOT / 'examples' / 'concepts'}", *more]  # fmt: skip


def states(workspace: Path) -> list[tuple[str, str]]:
    """Of the flow runs and the task runs that the workspace's own database has."""
    with sqlite3.connect(f"file:{quote(str(workspace))}/artifacts/prefect/prefect.db?mode=ro", uri=True) as base:
        return [row for table in ("flow_run", "task_run") for row in base.execute(f"select name, state_type from {table}")]


@pytest.mark.slow
@pytest.mark.usefixtures("not_deaf")
@pytest.mark.parametrize(
    ("number", "status", "end"), [(signal.SIGINT, 130, f"{STOPPED}\n"), (signal.SIGTERM, -15, ""), (signal.SIGKILL, -9, "")], ids=str
)
def test_a_run_that_is_stopped_ends_at_once_and_its_server_with_it(number, status, end, workspace: Path, tmp_path: Path) -> None:
    """The signal goes to the group, as a terminal's Ctrl-C and the SIGTERM of `timeout` and systemd do."""
    log = tmp_path / "run.log"
    with started(command(workspace, "--set", "train.steps=100000"), log, alone(**HOSTILE)) as process:
        wait_for(lambda: "validate: 1 " in log.read_text(), process, log)
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())
        assert answers(f"{address}/api/health")
        assert [path.name for path in workspace.parent.iterdir()] == [workspace.name]
        os.killpg(process.pid, number)
        ended = process.wait(60)  # it was two and a half minutes when the server ended first
        told = log.read_text()
        assert ended == status, told[-3000:]
        assert told.endswith(end) and "Traceback" not in told and "fault of" not in told
        assert re.search(r"^\d\d:\d\d:\d\d\.\d{3} \| INFO    \| Task run 'validate-\w+' - validate: 1 ", told, re.MULTILINE)
        until = time.monotonic() + 60
        while answers(f"{address}/api/health"):
            assert time.monotonic() < until, "the server outlived its run"
            time.sleep(0.2)


@pytest.mark.slow
def test_the_next_run_ends_those_that_were_killed(workspace: Path) -> None:
    """After the three above; with wrong settings, for it is the turn that counts."""
    assert "RUNNING" in {state for _, state in states(workspace)}
    wrong = command(workspace, "--set", "generator.model=/there/is/nothing")
    done = subprocess.run(wrong, cwd=ROOT, env=alone(**HOSTILE), capture_output=True, text=True)
    assert done.returncode == 2 and "generator.model" in done.stderr and "is Crashed now" in done.stderr, done.stderr
    assert {state for _, state in states(workspace)} == {"COMPLETED", "CRASHED", "FAILED"}


def test_a_server_that_is_set_is_used(server, tmp_path, capfd) -> None:
    with prefect_server(tmp_path):
        pass
    assert "Starting a server" not in "".join(capfd.readouterr()) and not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "PREFECT_API_URL: no Prefect server answers at http://127.0.0.1:9/api"),
        ("PREFECT_API_URL", "nonsense", "PREFECT_API_URL: no Prefect server answers at nonsense"),
        ("PREFECT_CLIENT_MAX_RETRIES", "many", "what is set for Prefect"),
    ],
)
def test_what_is_set_wrongly_is_told_in_a_sentence(name, value, said, tmp_path) -> None:
    done = subprocess.run(command(tmp_path), cwd=ROOT, env=alone(**{name: value}), capture_output=True, text=True)
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr, done.stderr


@pytest.mark.slow
def test_a_database_that_cannot_be_opened_is_put_aside(workspace: Path) -> None:
    home = workspace / "artifacts" / "prefect"
    for rest in home.glob("prefect.db*"):
        rest.unlink()
    (home / "prefect.db").write_text("no database")
    wrong = command(workspace, "--set", "generator.model=/there/is/nothing")
    done = subprocess.run(wrong, cwd=ROOT, env=alone(), capture_output=True, text=True)
    assert done.returncode == 2 and "generator.model" in done.stderr and "Traceback" not in done.stderr
    assert (home / "prefect.db.aside").read_text() == "no database" and ("FAILED" in {state for _, state in states(workspace)})
