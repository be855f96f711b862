"""How far a stage is, in the run's log: one line a minute."""

from __future__ import annotations

import time
from collections.abc import Callable

from ti_pipeline.concepts.texts import visible

EVERY = 60.0  # seconds


def log_lines(log: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Callable[[int, int, str], None]:
    """A stage's `progress`, written to `log`. Lines rather than an artifact: a log line never fails the work when the API is away."""
    last = clock()

    def progress(done: int, total: int, text: str) -> None:
        nonlocal last
        if clock() - last >= EVERY:
            last = clock()
            log(f"{100 * done // max(total, 1)} % ({visible(text)})")

    return progress
