"""How a word came about, for its page: the curve that its step was chosen on, and what it drew on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table, table_metadata
from ti_pipeline.gallery.pictures import Hung, shown_size, write_webp
from ti_pipeline.inversion.strip import read_strip
from ti_pipeline.workspace import Workspace

WIDTH, HEIGHT, MARGIN, LEFT = 320, 140, 10, 34  # of the plot, in its own units; on the left are the numbers of its scale
MEASURES = (("alike", "Likeness", "like"), ("faithful", "Follows the prompt", "faith"))


@dataclass(frozen=True)
class Line:
    """One measure over the steps, in the plot's units."""

    name: str
    style: str
    points: tuple[tuple[float, float], ...]

    @property
    def path(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Curve:
    """Both measures, in percent, at every step, the share of likeness in the choice in percent, and where all of it lies in the plot."""

    rows: tuple[dict[str, Any], ...]
    chosen: int
    weight: float
    lines: tuple[Line, ...]
    chosen_x: float
    zero: float
    hundred: float

    @property
    def first(self) -> int:
        return self.rows[0]["step"]

    @property
    def last(self) -> int:
        return self.rows[-1]["step"]

    @property
    def told(self) -> str:
        """The curve for those who do not see it."""
        each = []
        for key, name, _ in MEASURES:
            values = [round(row[key]) for row in self.rows if row[key] is not None]
            each += [f"{name} goes from {values[0]} to {values[-1]}, at the step taken it is {self._at(key)}"] if values else []
        return f"{'; '.join(each)}. From {self.first} to {self.last} steps; the word after {self.chosen} steps is taken."

    def _at(self, key: str) -> int:
        return next(round(row[key]) for row in self.rows if row["step"] == self.chosen)


@dataclass(frozen=True)
class Frame:
    """What was drawn after so many steps."""

    step: int
    hung: Hung


def read_curve(workspace: Workspace, concept: str, fingerprint: str) -> Curve | None:
    """The curve of the word that stands under the fingerprint, if its step was chosen. Raises ConceptError where it is damaged."""
    path = workspace.curve(concept)
    about = table_metadata(path)
    if not fingerprint or about.get("fingerprint") != fingerprint:
        return None
    try:
        table = read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConceptError(concept, f"{path}: damaged ({error}). Run `ti-pipeline train --force {concept}`.") from None
    rows = [{"step": row["step"], **{key: _percent(row[key]) for key, *_ in MEASURES}, "chosen": row["chosen"]} for row in table]
    return plotted(rows, float(about["compromise"]))


def plotted(rows: Sequence[Mapping[str, Any]], weight: float) -> Curve:
    """`rows` have step, alike and faithful in percent or None, and chosen."""
    steps = [row["step"] for row in rows]
    values = [row[key] for row in rows for key, *_ in MEASURES if row[key] is not None]
    low, high = min([0.0, *values]), max([100.0, *values])

    def x(step: int) -> float:
        return round(LEFT + (WIDTH - LEFT - MARGIN) * ((step - steps[0]) / (steps[-1] - steps[0]) if len(steps) > 1 else 0.5), 1)

    def y(value: float) -> float:
        return round(MARGIN + (HEIGHT - 2 * MARGIN) * (high - value) / (high - low), 1)

    lines = [
        Line(name, style, tuple((x(row["step"]), y(row[key])) for row in rows if row[key] is not None)) for key, name, style in MEASURES
    ]
    chosen = next(row["step"] for row in rows if row["chosen"])
    drawn = tuple(line for line in lines if line.points)
    return Curve(tuple(dict(row) for row in rows), chosen, 100 * weight, drawn, x(chosen), y(0), y(100))


def hang_frames(workspace: Workspace, concept: str, folder: Path, edge: int) -> list[Frame]:
    """What the word drew while it was learnt, by steps; none where nothing was drawn."""
    path = workspace.strip(concept)
    if not path.is_file():
        return []
    strip, frames = digest_file(path)[:12], []
    for step, picture in sorted(read_strip(path).items()):
        shown, size = folder / "frames" / f"{strip}-{step}-{edge}.webp", shown_size(picture.size, edge)
        if not shown.is_file():
            write_webp(picture, shown, size)
        label = f"After {step} steps" if step else "Before the first step"
        frames.append(Frame(step, Hung(f"frames/{shown.name}", "", *size, *picture.size, label)))
    return frames


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
