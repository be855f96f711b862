"""Tests talk to servers on this machine, whatever proxy is set, and say at the end what they could not test here."""

from __future__ import annotations

from collections import Counter

import pytest

from ti_pipeline.loopback import spare_loopback

spare_loopback()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, and what to install for it."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped if isinstance(report.longrepr, tuple))
    if reasons:
        terminalreporter.section("not tested on this machine")
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} test{'s' if count != 1 else ''}: {reason}")
