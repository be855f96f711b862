"""The cells of a comparison as arrays, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ti_pipeline.comparison.arms import Arm
from ti_pipeline.comparison.cells import FAILED, Cell, Files, Wanted
from ti_pipeline.comparison.statistics import estimate, grand_mean, paired, steps_to
from ti_pipeline.evaluation.metrics import Estimate
from ti_pipeline.evaluation.report import PICTURES, PROMPT
from ti_pipeline.params import Compare

MEASURES = ("reconstruction", "editability", "editability_per_sample")
REFERENCES = (PICTURES, PROMPT)


@dataclass(frozen=True)
class Results:
    """`orders` are the concepts whose cells all stand, `waiting` the names of those of which some do not."""

    section: Compare
    arms: Sequence[Arm]
    orders: Sequence[Wanted]
    waiting: Sequence[str]
    numbers: dict[str, dict[str, Any]] = field(repr=False)
    """By the digest of the cell."""
    taken: dict[str, float] = field(repr=False)
    """[s] Of training, by the digest of the cell."""

    @classmethod
    def read(cls, section: Compare, arms: Sequence[Arm], orders: Sequence[Wanted], files: Files) -> Results:
        ready, waiting = [], []
        numbers: dict[str, dict[str, Any]] = {}
        taken: dict[str, float] = {}
        for order in orders:
            found = {cell.digest: files.read(cell) if files.stands(cell) else None for cell in order.cells}
            if None in found.values():
                waiting.append(order.manifest.slug)
                continue
            ready.append(order)
            numbers |= {digest: each for digest, each in found.items() if each}
            taken |= {cell.digest: seconds for cell in order.cells if (seconds := files.read_seconds(cell)) is not None}
        return cls(section, arms, ready, waiting, numbers, taken)

    @property
    def baseline(self) -> str:
        return self.section.baseline

    @property
    def names(self) -> list[str]:
        """All arms, the baseline first, then the references."""
        return [*(arm.name for arm in self.arms), *REFERENCES]

    @cached_property
    def cells(self) -> dict[str, list[tuple[int, int, Cell]]]:
        """Each arm's with the places of concept and seed."""
        place = {seed: i for i, seed in enumerate(self.section.seeds)}
        found: dict[str, list[tuple[int, int, Cell]]] = {name: [] for name in self.names}
        for row, order in enumerate(self.orders):
            for cell in order.cells:
                found[cell.arm].append((row, 0 if cell.arm == PICTURES else place[cell.seed], cell))
        return found

    def values(self, arm: str, measure: str) -> np.ndarray:
        """`[concepts, seeds]`, NaN where there is none."""
        return self._array(arm, lambda numbers: numbers.get(measure))

    def _array(self, arm: str, of: Any) -> np.ndarray:
        array = np.full((len(self.orders), len(self.section.seeds)), np.nan)
        for row, column, cell in self.cells[arm]:
            if (value := of(self.numbers[cell.digest])) is not None:
                array[row, column] = value
        return array

    def mean(self, arm: str, measure: str) -> Estimate | None:
        return estimate(self.values(arm, measure), self.section.bootstrap)

    def difference(self, arm: str, measure: str) -> Estimate | None:
        """To the baseline, over the same concepts and seeds."""
        if arm in (self.baseline, *REFERENCES):
            return None
        return paired(self.values(arm, measure), self.values(self.baseline, measure), self.section.bootstrap)

    def failed(self, arm: str) -> int:
        """Cells of which nothing could be learnt."""
        return sum(FAILED in self.numbers[cell.digest] for _, _, cell in self.cells[arm])

    def steps(self, arm: str) -> float | None:
        """Mean steps of a training; None where nothing is learnt."""
        values = [numbers["steps"] for _, _, cell in self.cells[arm] if (numbers := self.numbers[cell.digest]).get("steps") is not None]
        return float(np.mean(values)) if values else None

    def seconds(self, arm: str) -> float | None:
        """[s] Mean of a training, its part of the passes that it was in."""
        taken = [self.taken[cell.digest] for _, _, cell in self.cells[arm] if cell.digest in self.taken]
        return float(np.mean(taken)) if taken else None

    def curve(self, arm: str) -> list[dict[str, Any]]:
        """Means after each step that most cells of the arm have, the last being the end of the training."""
        points = [self.numbers[cell.digest].get("curve", ()) for _, _, cell in self.cells[arm]]
        steps = sorted({point["step"] for each in points for point in each})
        rows = []
        for step in steps:
            at = {measure: self._array(arm, _at(step, measure)) for measure in MEASURES}
            if 2 * (~np.isnan(at["reconstruction"])).sum() > sum(map(bool, points)):
                rows.append({"step": step} | {measure: estimate(values, self.section.bootstrap) for measure, values in at.items()})
        return rows

    def steps_to_baseline(self, arm: str) -> float | None:
        """After how many steps the arm is as alike as the baseline is at its end; None where it never is, or there is no curve."""
        curve, goal = self.curve(arm), self.curve(self.baseline)
        if not (curve and goal):
            return None
        return steps_to(goal[-1]["reconstruction"].value, [p["step"] for p in curve], [p["reconstruction"].value for p in curve])

    def prompt_means(self, arm: str) -> dict[str, float]:
        """Editability of each prompt, by the paper's rule."""
        prompts = dict.fromkeys(
            prompt for _, _, cell in self.cells[arm] for prompt in self.numbers[cell.digest].get("prompts", ())
        )  # fmt: skip
        return {prompt: grand_mean(self._array(arm, _of_prompt(prompt))) for prompt in prompts}


def _at(step: int, measure: str) -> Any:
    def of(numbers: dict[str, Any]) -> float | None:
        return next((point[measure] for point in numbers.get("curve", ()) if point["step"] == step), None)

    return of


def _of_prompt(prompt: str) -> Any:
    return lambda numbers: numbers.get("prompts", {}).get(prompt)
