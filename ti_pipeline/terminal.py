"""What people read on a terminal: progress, tables, log lines, where to look.

All that is printed goes through here: what file names, settings and servers say is never markup, and never moves the cursor.
"""

from __future__ import annotations

import html
import json
import logging
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ti_pipeline.concepts.texts import is_control, visible
from ti_pipeline.errors import without_passwords
from ti_pipeline.workspace import Outcome

Step = Callable[[int, int, str], None]
STYLE = {"done": "green", "up-to-date": "dim", "stale": "yellow", "missing": "yellow", "quarantined": "yellow", "failed": "red"}
QUIET_SECONDS = 60.0
NOTEBOOK_SECONDS = 0.2  # between two states of its bar
STOPPED = "Stopped. What is done is kept; the same command continues from there."
TIME = "%Y-%m-%d %H:%M:%S"
_REASON = 24  # cells that a table's last column must have left on a terminal, else it is written in lines


def say(text: object, *, err: bool = False) -> None:
    """Print lines, with their control characters as Python writes them."""
    print(_lines_of(text), file=sys.stderr if err else sys.stdout, flush=True)


def note(text: object) -> None:
    """A line of a command's log, with its time, on stderr."""
    say(f"{time.strftime(TIME)} {visible(str(text))}", err=True)


def say_json(value: Any) -> None:
    """Print JSON for programs; what would move the cursor is escaped in it too."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(f"\\u{ord(char):04x}" if is_control(char) and char != "\n" else char for char in text), flush=True)


class Discreet(logging.Formatter):
    """Messages and tracebacks without control characters, and without the passwords of addresses."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return without_passwords(visible(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:
        return without_passwords(_lines_of(super().formatException(ei)))


def log_to_stderr() -> None:
    """Warnings and errors of every library as lines with their time."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s", TIME))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def progress(stage: str) -> Iterator[Step]:
    """A bar on a terminal and in a notebook, gone when it is over; elsewhere a line a minute. On stderr but in a notebook."""
    if _in_notebook():
        with _notebook_bar(stage) as step:
            yield step
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(stage)
        return
    columns = (
        TextColumn("[bold]{task.fields[stage]}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, stage=stage)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=visible(text))


def _in_notebook() -> bool:
    """Whether a Jupyter kernel shows what is displayed."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


@contextmanager
def _notebook_bar(stage: str) -> Iterator[Step]:
    """HTML's own element: every notebook shows it without an extension."""
    from IPython.display import HTML, display

    shown, last = display(HTML(""), display_id=True), 0.0

    def step(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= NOTEBOOK_SECONDS:
            last = time.monotonic()
            bar = f'<progress value="{done}" max="{max(total, 1)}"></progress>'
            shown.update(HTML(f"<b>{html.escape(stage)}</b> {bar} {html.escape(visible(text))}"))

    try:
        yield step
    finally:
        shown.update(HTML(""))


def _lines(stage: str) -> Step:
    last = time.monotonic()

    def step(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            note(f"{stage}: {100 * done // max(total, 1)} % ({text})")

    return step


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal that is wide enough, its last column wrapped; elsewhere a line a row, of which nothing is cut."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[visible(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    borders = 3 * len(widths) + 1
    console = Console()
    if sys.stdout.isatty() and sum(widths[:-1]) + min(widths[-1], _REASON) + borders <= console.width:
        table = Table()
        for name in columns:
            table.add_column(name, no_wrap=name != columns[-1], overflow="fold")
        for texts in cells:
            table.add_row(*(Text(cell, STYLE.get(cell, "")) for cell in texts))
        console.print(table)
    else:
        for row in (columns, *cells):
            say("  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_outcomes(outcomes: list[Outcome]) -> None:
    show_table(("concept", "state", "seconds", "why"), [(o.concept, o.state, f"{o.seconds:.1f}", o.reason) for o in outcomes])
    counts = {state: sum(o.state == state for o in outcomes) for state in dict.fromkeys(o.state for o in outcomes)}
    say(", ".join(f"{count} {state}" for state, count in counts.items()))


def print_summary(summary: dict) -> None:
    """What `flows.train_concepts` returned."""
    reasons = summary.get("reasons", {})
    show_table(("concept", "state", "why"), [(slug, state, reasons.get(slug, "")) for slug, state in summary["concepts"].items()])
    for text in summary.get("notes", []):
        say(text)


def print_where_to_look(index: Path) -> None:
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    say(f"\nThe gallery: {index}\nOpen it:     {opener} {shlex.quote(str(index))}")


def print_study(study: dict, plot: Path) -> None:
    """How often each setup beats another, in people's eyes."""

    def told(estimate: dict | None) -> str:
        return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})" if estimate else "–"

    rows = [(setup, told(kinds["likeness"]), told(kinds["text"])) for setup, kinds in study["setups"].items()]
    show_table(("setup", "by likeness", "by text"), rows)
    answers, left = sum(study["answers"].values()), study["left_out"]
    say(f"Share of the other setups beaten, {answers} answers of {study['people']} people; 0.5 is chance. Drawn in {plot}.")
    if left:
        say(f"{left} answers were to questions that have changed since, and are left out.")


def print_status(rows: list[dict]) -> None:
    stages = rows[0]["stages"] if rows else ()
    show_table(("concept", *stages, "why"), [(row["concept"], *row["stages"].values(), row["reason"]) for row in rows])


def print_plan(plan: dict) -> None:
    about, learnt, weights, activations = (plan[key] for key in ("generator", "learnt", "weights", "activations"))
    pack, collection, seconds, disk = (plan[key] for key in ("pack", "collection", "seconds", "disk"))
    parts = [(name, f"{part['parameters']:,} parameters, {_bytes(part['bytes'])}") for name, part in weights.items() if name != "bytes"]
    encoders = ", ".join(f"{name} ({width} numbers a vector)" for name, width in about["text_encoders"].items())
    rows = [
        ("generator", f"{about['name']} ({about['family']}), {about['pixels']} pixels"),
        ("runs on", f"{about['device']} in {about['precision']}" + (f", weights in {about['quantised']}" if about["quantised"] else "")),
        ("words are learnt in", encoders),
        ("learnt", f"{learnt['numbers']:,} numbers a concept, {_bytes(learnt['bytes'])}"),
        *parts,
        ("weights", _bytes(weights["bytes"])),
        ("activations, training", f"{_bytes(activations['concept'])}, each further concept {_bytes(activations['further_concept'])}"),
        ("activations, drawing", _bytes(activations["drawing"])),
        ("concepts in a pack", f"{pack['concepts']}, limited by {pack['limited_by']}"),
        ("collection", f"{_count(collection['concepts'], 'concept')}, {_count(collection['pictures']['generate'], 'candidate')}"),
        *((f"time, {stage}", _duration(taken)) for stage, taken in seconds.items()),
        ("disk", f"{_bytes(disk['candidates'] + disk['words'])} of {_bytes(disk['free'])} that are free"),
    ]
    show_table(("what", "how much"), rows)
    say("Of the whole collection, from its beginning; what stands already is passed over.")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _bytes(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not known before the first run on this machine"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes} min" if hours else f"about {minutes} min" if minutes else f"about {seconds:.0f} s"


def _lines_of(text: object) -> str:
    return "\n".join(map(visible, str(text).split("\n")))
