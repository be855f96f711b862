"""Means over concepts and seeds with their intervals. Pure numpy; values are `[concepts, seeds]`, NaN where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ti_pipeline.evaluation.metrics import LEVEL, Estimate


def grand_mean(values: np.ndarray) -> float:
    """Mean over the concepts of each one's mean over its seeds: a concept with fewer seeds counts as much. NaN without any value."""
    rows = [row[~np.isnan(row)] for row in values]
    return float(np.mean([row.mean() for row in rows if len(row)])) if any(len(row) for row in rows) else float("nan")


def estimate(values: np.ndarray, count: int) -> Estimate | None:
    """The grand mean with its 95 % percentile interval: `count` times concepts are drawn with replacement, and for each of those drawn
    its seeds. The draws are the same for every arm that has the same cells. None without any value."""
    rows = [row[~np.isnan(row)] for row in values]
    rows = [row for row in rows if len(row)]
    if not rows:
        return None
    rng = np.random.default_rng(0)
    sizes = np.array([len(row) for row in rows])
    whole = np.zeros((len(rows), sizes.max()))
    for place, row in enumerate(rows):
        whole[place, : len(row)] = row
    concepts = rng.integers(len(rows), size=(count, len(rows)))
    u = rng.random((count, len(rows), sizes.max()))
    seeds = (u * sizes[concepts][..., None]).astype(np.int64)
    drawn = whole[concepts[..., None], seeds]
    counted = np.arange(sizes.max()) < sizes[concepts][..., None]  # as many seeds as the concept has
    means = (np.where(counted, drawn, 0.0).sum(axis=2) / sizes[concepts]).mean(axis=1)
    low, high = np.percentile(means, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Estimate(grand_mean(values), float(low), float(high), int(sizes.sum()))


def paired(values: np.ndarray, baseline: np.ndarray, count: int) -> Estimate | None:
    """How much more `values` are than those of the baseline, over the concepts and seeds that both have."""
    return estimate(values - baseline, count)


def steps_to(goal: float, steps: Sequence[int], values: Sequence[float]) -> float | None:
    """After how many steps a curve first rises to `goal`, straight between its points; the first step where it is never below, None where
    it never gets there. A word that starts alike and has to unlearn that first has not got there by starting."""
    if min(values) >= goal:
        return float(steps[0])
    for (step, value), (after, then) in pairwise(zip(steps, values, strict=True)):
        if value < goal <= then:
            return step + (after - step) * (goal - value) / (then - value)
    return None
