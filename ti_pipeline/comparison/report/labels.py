"""Where names stand beside their points so that none covers another. In pixels; deterministic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import cos, hypot, pi, sin

REACHES = (11, 17, 26, 38, 54, 74, 98)
TURNS = 24
NEAR = 20  # pixels from which on a line leads to the point


@dataclass(frozen=True)
class Box:
    left: float
    bottom: float
    right: float
    top: float

    def over(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


def place(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bars: Sequence[Box],
    frame: Box,
    taken: Sequence[Box] = (),
    mark: float = 7,
) -> list[Box]:
    """A box for each name, near its point. `sizes` are the widths and heights of the names, `bars` what they had better not cover,
    `taken` what they must not, `mark` half the width of a point. Names are placed in turn, the most crowded first."""
    marks = [*taken, *(Box(x - mark, y - mark, x + mark, y + mark) for x, y in points)]
    crowd = [sum(hypot(x - u, y - v) < 60 for u, v in points) for x, y in points]
    placed: dict[int, Box] = {}
    for i in sorted(range(len(points)), key=lambda i: (-crowd[i], i)):
        boxes = list(_around(points[i], sizes[i]))
        placed[i] = min(boxes, key=lambda at: _cost(at[1], at[0], [*marks, *placed.values()], bars, frame))[1]
    return [placed[i] for i in range(len(points))]


def _around(point: tuple[float, float], size: tuple[float, float]) -> Iterator[tuple[float, Box]]:
    """Boxes around a point, and how far each is from it, the nearest first."""
    (x, y), (width, height) = point, size
    for reach in REACHES:
        for turn in range(TURNS):
            angle = 2 * pi * turn / TURNS
            dx, dy = cos(angle), sin(angle)
            # the point of the box that is nearest lies at `reach`: to the right of it the box begins there, above it is centred
            left = x + dx * reach - (width if dx < -0.3 else width / 2 if dx < 0.3 else 0)
            bottom = y + dy * reach - height / 2
            yield reach, Box(left, bottom, left + width, bottom + height)


def _cost(box: Box, reach: float, hard: Sequence[Box], soft: Sequence[Box], frame: Box) -> float:
    covered = sum(box.over(other) for other in hard)
    outside = box.area - box.over(frame)
    return 50 * covered + 50 * outside + 0.6 * sum(box.over(other) for other in soft) + reach


def spread(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as need be, in their order, so that neighbours are `gap` apart and, if there is room, within the ends."""
    order = sorted(range(len(places)), key=lambda i: (places[i], i))
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while (
            len(groups) > 1
            and _centre(groups[-1], places, gap, low, high) - _centre(groups[-2], places, gap, low, high)
            < gap * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            last = groups.pop()
            groups[-1] += last
    moved = [0.0] * len(places)
    for group in groups:
        start = _centre(group, places, gap, low, high) - gap * (len(group) - 1) / 2
        for place, i in enumerate(group):
            moved[i] = start + gap * place
    return moved


def _centre(group: Sequence[int], places: Sequence[float], gap: float, low: float, high: float) -> float:
    half = gap * (len(group) - 1) / 2
    mean = sum(places[i] for i in group) / len(group)
    return min(max(mean, low + half), max(high - half, low + half))
