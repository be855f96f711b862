from __future__ import annotations

from tasks.progress import log_lines


def test_one_line_a_minute() -> None:
    now, lines = 0.0, []
    step = log_lines(lines.append, clock=lambda: now)
    for now in range(0, 300):
        step(int(now), 300, f"fox: step {now}")
    assert lines == ["20 % (fox: step 60)", "40 % (fox: step 120)", "60 % (fox: step 180)", "80 % (fox: step 240)"]


def test_nothing_to_do_is_no_division_by_zero() -> None:
    now, lines = 0.0, []
    step = log_lines(lines.append, clock=lambda: now)
    now = 61.0
    step(0, 0, "nothing")
    assert lines == ["0 % (nothing)"]
