"""Tests talk to servers on this machine, whatever proxy is set, and say at the end what they could not test here."""

from __future__ import annotations

import gc
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from ti_pipeline.loopback import spare_loopback

spare_loopback()
gc.set_threshold(10_000, 10, 10)  # as `Models` does: looking for dead objects among those of the libraries is a sixth of the time


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a fifth of the time a test waits for a server or another process."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long come first, so that none of them is what all others wait for at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, and what to install for it."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    if reasons:
        terminalreporter.section("not tested on this machine")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} test{'s' if count != 1 else ''}: {reason}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """`prefect server start` on a free port with a home of its own; yields the environment of a process that uses it.

    One for all tests of a process: its settings are the process's.
    """
    import flows  # noqa: F401  (first: it sets what Prefect reads when it is imported)

    # isort: split
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    from tests.flows.processes import answers, started, wait_for

    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}/api"
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_API_URL": address}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with started(command, home / "server.log", environment) as process:
        wait_for(lambda: answers(f"{address}/health"), process, home / "server.log")
        with temporary_settings({PREFECT_API_URL: address, PREFECT_HOME: home}):
            yield environment
