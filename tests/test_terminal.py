"""What is printed: nothing from outside is markup or moves the cursor, and nothing is cut."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from ti_pipeline import terminal
from ti_pipeline.concepts.texts import visible
from ti_pipeline.workspace import Outcome

ROOT = Path(__file__).parent.parent
EVIL = "`\\[/bold]` [red]\x1b[2J\x07\x9b31m\n2026-01-01 ERROR forged\u202e\ud800"
SEEN = "`\\[/bold]` [red]\\x1b[2J\\x07\\x9b31m\\n2026-01-01 ERROR forged\\u202e\\ud800"
PATH = "/" + "/".join(["a-folder-with-a-name"] * 12) + "/end"
OWN = re.compile(r"\x1b\[[0-9;]*m|\r|[─-╿]")  # rich's colours and borders
PRINT = """
import json, sys
from ti_pipeline import terminal
from ti_pipeline.workspace import Outcome
what, args = json.loads(sys.argv[1])
if what == "print_outcomes":
    args = [[Outcome(*outcome) for outcome in args[0]]]
getattr(terminal, what)(*args)
"""
STATES = dict.fromkeys(("validate", "train", "generate", "rank", "evaluate", "gallery"), "quarantined")
TABLES = {
    "print_outcomes": [[["validate", "a-concept" * 5, "quarantined", 0.0, f"{EVIL} {PATH}"]]],
    "print_status": [[{"concept": "a-concept" * 5, "stages": STATES, "reason": visible(f"{EVIL} {PATH}")}]],
    "print_summary": [{"concepts": {"a-concept" * 5: "failed"}, "reasons": {"a-concept" * 5: f"{EVIL} {PATH}"}, "notes": [EVIL]}],
}


def on_terminal(columns: int, what: str, args: list) -> str:
    """What a terminal of so many columns gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**{key: os.environ[key] for key in os.environ if key not in ("COLUMNS", "LINES", "NO_COLOR")}, "TERM": "xterm-256color"}
    command = [sys.executable, "-c", PRINT, json.dumps([what, args])]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs) as process:
        os.close(theirs)
        parts = []
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # Linux's end of a terminal that nobody writes to any more
            pass
    os.close(ours)
    assert process.returncode == 0
    return b"".join(parts).decode()


@pytest.mark.parametrize("what", TABLES)
@pytest.mark.parametrize("columns", [400, 130, 40])
def test_on_a_terminal_nothing_is_cut_and_nothing_is_markup(what: str, columns: int) -> None:
    said = OWN.sub("", on_terminal(columns, what, TABLES[what]))
    assert "…" not in said and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    together = re.sub(r"\s+", "", said)
    for part in (PATH, "a-concept" * 5, "`\\[/bold]`[red]\\x1b[2J\\x07\\x9b31m\\n2026-01-01ERRORforged\\u202e\\ud800"):
        assert part in together


def test_a_terminal_that_is_wide_enough_gets_a_table() -> None:
    said = on_terminal(130, "print_outcomes", TABLES["print_outcomes"])
    assert "┃" in said and max(map(len, OWN.sub("", said).splitlines())) <= 130
    assert "┃" not in on_terminal(40, "print_outcomes", TABLES["print_outcomes"])


@pytest.mark.parametrize("what", TABLES)
def test_a_pipe_gets_a_whole_line_a_row(what: str) -> None:
    command = [sys.executable, "-c", PRINT, json.dumps([what, TABLES[what]])]
    for more in ({}, {"COLUMNS": "20"}, {"COLUMNS": "200", "FORCE_COLOR": "1"}):
        said = subprocess.run(command, cwd=ROOT, env=os.environ | more, capture_output=True, text=True, check=True).stdout
        row = next(line for line in said.splitlines() if line.startswith("a-concept"))
        assert row.endswith(PATH) and SEEN in row and "\x1b" not in said


def test_columns_stand_under_each_other(capsys: pytest.CaptureFixture) -> None:
    terminal.show_table(("concept", "why"), [("漢字", "wide"), ("fox", "")])
    assert capsys.readouterr().out == "concept  why\n漢字     wide\nfox\n"


def test_lines_and_json_hold_no_control_characters(capsys: pytest.CaptureFixture) -> None:
    terminal.say("a\tb\nc\x1b[31m", err=True)
    assert capsys.readouterr().err == "a\\tb\nc\\x1b[31m\n"
    terminal.say_json({"reason": EVIL})
    out = capsys.readouterr().out
    assert json.loads(out) == {"reason": EVIL} and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", out)


def test_a_log_line_has_its_time_and_is_one_line(capsys: pytest.CaptureFixture) -> None:
    root = logging.getLogger()
    before, root.handlers = root.handlers, []
    try:
        terminal.log_to_stderr()
        try:
            raise ValueError(f"{EVIL} in a trace")
        except ValueError:
            logging.getLogger("x").exception("train of %s", EVIL)
    finally:
        root.handlers = before
    first, *trace = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ERROR x: train of (.*)", first).group(1) == SEEN
    assert trace[0].startswith("Traceback") and "\x1b" not in "".join(trace)


def test_away_from_a_terminal_progress_is_a_line_with_its_time(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0)
    with terminal.progress("train") as step:
        step(1, 4, f"fox: {EVIL}")
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d train: 25 % \(fox: {re.escape(SEEN)}\)\n", capsys.readouterr().err)


def test_a_reason_is_safe_wherever_it_goes() -> None:
    assert Outcome("train", "fox", "failed", reason=EVIL).to_json()["reason"] == SEEN


def test_in_a_notebook_progress_is_an_element_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython", reason="IPython is not installed")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    assert not terminal._in_notebook()
    monkeypatch.setattr(shell, "kernel", "one", raising=False)
    monkeypatch.setattr(terminal, "NOTEBOOK_SECONDS", 0)
    with capture_output() as heard:
        with terminal.progress("train") as step:
            step(3, 4, "<fox>\x1b: step 3")
    first, bar, last = [shown.data.get("text/html") for shown in heard.outputs]
    assert (first, last) == ("", "") and '<progress value="3" max="4">' in bar and "&lt;fox&gt;\\x1b: step 3" in bar
