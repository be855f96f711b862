"""Real processes beside a test, and waiting for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from prefect import State

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def artifact(server: dict[str, str], key: str, state: State) -> str:
    """The text of what the flow run that ended in `state` has left under `key`."""
    wanted = {"artifacts": {"key": {"any_": [key]}, "flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}}
    (found,) = httpx.post(f"{server['PREFECT_API_URL']}/artifacts/filter", json=wanted).raise_for_status().json()
    return found["data"]


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    """The command in a process group of its own, which is ended as a whole."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # a test may have ended them
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(address: str) -> bool:
    try:
        return httpx.get(address, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def wait_for(ask: Callable[[], T], process: subprocess.Popen, log: Path, seconds: float = 300) -> T:
    """The first true answer; fails with the log's end when the process ends or the time is up before there is one."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        if answer := ask():
            return answer
        time.sleep(0.5)
    pytest.fail(f"no answer in {seconds:.0f} s, or the process ended. Its log ends with:\n{log.read_text()[-3000:]}")
