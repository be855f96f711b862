"""The mathematics against plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from ti_pipeline.comparison.statistics import estimate, grand_mean, paired, steps_to

NAN = float("nan")
VALUES = np.array([[0.1, 0.3, NAN], [0.5, NAN, NAN], [NAN, NAN, NAN], [0.2, 0.4, 0.9]])


def test_a_concept_counts_as_much_with_fewer_seeds() -> None:
    assert grand_mean(VALUES) == pytest.approx((0.2 + 0.5 + 0.5) / 3)
    assert np.isnan(grand_mean(np.full((2, 2), NAN)))


def test_intervals_are_those_of_plain_loops() -> None:
    rows = [[0.1, 0.3], [0.5], [0.2, 0.4, 0.9]]
    rng = np.random.default_rng(0)
    concepts = rng.integers(3, size=(500, 3))
    u = rng.random((500, 3, 3))
    drawn = []
    for b in range(500):
        means = []
        for place, concept in enumerate(concepts[b]):
            own = rows[concept]
            means.append(sum(own[int(u[b, place, seed] * len(own))] for seed in range(len(own))) / len(own))
        drawn.append(sum(means) / 3)
    found = estimate(VALUES, 500)
    assert found and found.n == 6 and found.value == pytest.approx(0.4)
    assert [found.low, found.high] == pytest.approx(list(np.percentile(drawn, [2.5, 97.5])))
    assert estimate(np.full((2, 2), NAN), 500) is None


def test_an_interval_covers_what_it_says() -> None:
    """Of 200 worlds with a known mean about 95 % have it within their intervals."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        values = rng.normal(0, 0.3, size=(20, 1)) + rng.normal(0, 0.1, size=(20, 3))
        found = estimate(values, 400)
        hits += found is not None and found.low <= 0 <= found.high
    assert 175 <= hits <= 199


def test_pairs_leave_out_what_concepts_have_in_common() -> None:
    """Concepts differ by far more than arms do: apart the intervals overlap, in pairs the difference is sure."""
    rng = np.random.default_rng(2)
    baseline = rng.normal(0.5, 0.2, size=(8, 1)) + rng.normal(0, 0.005, size=(8, 3))
    better = baseline + 0.03 + rng.normal(0, 0.005, size=(8, 3))
    better[0, 0] = NAN  # and only what both have is held against each other
    apart, difference = (estimate(baseline, 1000), estimate(better, 1000)), paired(better, baseline, 1000)
    assert apart[0].high > apart[1].low
    assert difference and difference.low > 0 and difference.value == pytest.approx(0.03, abs=0.005) and difference.n == 23


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.1, 0.3, 0.5, 0.6), 15.0),  # between 10 and 20
        ((0.1, 0.4, 0.5, 0.6), 10.0),
        ((0.1, 0.2, 0.3, 0.3), None),
        ((0.5, 0.6, 0.7, 0.6), 0.0),  # never below
        ((0.5, 0.2, 0.3, 0.5), 25.0),  # starts alike, unlearns it, and gets there
        ((0.5, 0.6, 0.2, 0.5), 20 + 10 * 2 / 3),  # however long it stayed alike at first
        ((0.5, 0.2, 0.3, 0.3), None),
    ],
)
def test_steps_to_a_likeness(values: tuple[float, ...], expected: float | None) -> None:
    assert steps_to(0.4, (0, 10, 20, 30), values) == (None if expected is None else pytest.approx(expected))
