"""Names beside points cover neither each other nor a point."""

from __future__ import annotations

import numpy as np
import pytest

from ti_pipeline.comparison.report.labels import Box, place, spread

FRAME = Box(0, 0, 860, 550)


@pytest.mark.parametrize("seed", range(4))
def test_eighteen_names_in_a_crowd_stand_free(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in zip(rng.normal(430, 90, 18), rng.normal(275, 60, 18), strict=True)]
    sizes = [(float(width), 12.0) for width in rng.uniform(40, 130, 18)]
    bars = [Box(x - 60, y - 1.5, x + 60, y + 1.5) for x, y in points]
    boxes = place(points, sizes, bars, FRAME)
    for i, box in enumerate(boxes):
        assert box.right - box.left == pytest.approx(sizes[i][0]) and box.over(FRAME) == pytest.approx(box.area)
        assert all(box.over(other) == 0 for other in boxes[i + 1 :])
        assert all(box.over(Box(x - 7, y - 7, x + 7, y + 7)) == 0 for x, y in points)
    assert boxes == place(points, sizes, bars, FRAME)


def test_a_name_keeps_clear_of_what_stands_there_already() -> None:
    alone = place([(100, 100)], [(60, 12)], [], FRAME)[0]
    other = place([(100, 100)], [(60, 12)], [], FRAME, [alone])[0]
    assert alone.over(other) == 0


def test_names_at_the_ends_of_lines_are_apart_in_their_order() -> None:
    places = [0.5, 0.52, 0.1, 0.53, 0.99, 1.0]
    moved = spread(places, 0.06, 0.0, 1.0)
    order = sorted(range(6), key=lambda i: places[i])
    assert sorted(range(6), key=lambda i: moved[i]) == order
    gaps = np.diff(sorted(moved))
    assert gaps.min() >= 0.06 - 1e-9 and min(moved) >= 0 and max(moved) <= 1 + 1e-9
    assert moved[2] == 0.1  # nothing is near
