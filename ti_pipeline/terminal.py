"""What people read on a terminal: progress, tables, where to look."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ti_pipeline.workspace import Outcome

Step = Callable[[int, int, str], None]
STYLE = {"done": "green", "up-to-date": "dim", "stale": "yellow", "missing": "yellow", "quarantined": "yellow", "failed": "red"}
QUIET_SECONDS = 60.0


@contextmanager
def progress(stage: str) -> Iterator[Step]:
    """A bar on a terminal; elsewhere a line a minute. Both on stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(stage)
        return
    columns = (
        TextColumn("[bold]{task.fields[stage]}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, stage=stage)
        yield lambda done, total, text: bar.update(task, completed=done, total=total, description=text.replace("[", "\\["))


def _lines(stage: str) -> Step:
    last = time.monotonic()

    def step(done: int, total: int, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            print(f"{stage}: {100 * done // max(total, 1)} % ({text})", file=sys.stderr, flush=True)

    return step


def print_outcomes(outcomes: list[Outcome]) -> None:
    table = Table("concept", "state", "seconds", "why")
    for outcome in outcomes:
        table.add_row(outcome.concept, _coloured(outcome.state), f"{outcome.seconds:.1f}", _plain(outcome.reason))
    console = Console()
    console.print(table)
    counts = {state: sum(o.state == state for o in outcomes) for state in dict.fromkeys(o.state for o in outcomes)}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items()))


def print_summary(summary: dict) -> None:
    """What `flows.train_concepts` returned."""
    table = Table("concept", "state", "why")
    for concept, state in summary["concepts"].items():
        table.add_row(concept, _coloured(state), _plain(summary.get("reasons", {}).get(concept, "")))
    Console().print(table)
    for note in summary.get("notes", []):
        print(note)


def print_where_to_look(index: Path) -> None:
    opener = {"darwin": "open", "win32": "start"}.get(sys.platform, "xdg-open")
    print(f"\nThe gallery: {index}\nOpen it:     {opener} {shlex.quote(str(index))}")


def print_study(study: dict, plot: Path) -> None:
    """How often each setup beats another, in people's eyes."""

    def told(estimate: dict | None) -> str:
        return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})" if estimate else "–"

    table = Table("setup", "by likeness", "by text")
    for setup, kinds in study["setups"].items():
        table.add_row(_plain(setup), told(kinds["likeness"]), told(kinds["text"]))
    console = Console()
    console.print(table)
    answers, left = sum(study["answers"].values()), study["left_out"]
    console.print(f"Share of the other setups beaten, {answers} answers of {study['people']} people; 0.5 is chance. Drawn in {plot}.")
    if left:
        console.print(f"{left} answers were to questions that have changed since, and are left out.")


def print_status(rows: list[dict]) -> None:
    table = Table("concept", *rows[0]["stages"], "why") if rows else Table("concept")
    for row in rows:
        table.add_row(row["concept"], *(_coloured(state) for state in row["stages"].values()), _plain(row["reason"]))
    Console().print(table)


def _coloured(state: str) -> str:
    return f"[{STYLE.get(state, 'red')}]{state}[/]"


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
