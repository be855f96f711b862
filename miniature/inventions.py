"""Things and styles that nobody drew, made from those that somebody did: more words for the generator to hear.

An invented thing is artwork turned, stretched, mirrored, its colours exchanged – the same way in every artist's hand. An
invented style is a technique with chance inks. None is blue: the held-out style is a print in blue.
"""

from __future__ import annotations

import colorsys
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image

from miniature.pictures import pixel, sketch, toned

COLOUR_ORDERS = list(itertools.permutations(range(3)))
NOT_BLUE = (275 / 360, 1 + 165 / 360)  # hues of inks, around the circle


def thing(seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A change of straight-alpha artwork, uint8 `[edge, edge, 4]` to the same: every artist's picture becomes one of another thing."""
    rng = np.random.default_rng((29, seed))
    order = list(COLOUR_ORDERS[rng.integers(len(COLOUR_ORDERS))]) if rng.random() < 0.7 else [0, 1, 2]
    turn, shear = rng.normal(0, 0.2), rng.normal(0, 0.12)
    stretch = rng.uniform(0.8, 1.05, 2) * ([-1, 1] if rng.random() < 0.5 else [1, 1])
    cos, sin = np.cos(turn), np.sin(turn)
    back = np.linalg.inv(np.array([[cos, -sin], [sin, cos]]) @ np.array([[1, shear], [0, 1]]) @ np.diag(stretch))

    def change(rgba: np.ndarray) -> np.ndarray:
        middle = (rgba.shape[0] - 1) / 2
        shift = middle - back @ (middle, middle)
        matrix = (*back[0], shift[0], *back[1], shift[1])
        planes = rgba[..., [*order, 3]].astype(np.float32)
        planes[..., :3] *= planes[..., 3:] / 255
        images = [Image.fromarray(planes[..., c], "F") for c in range(4)]
        moved = [image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR) for image in images]
        out = np.stack([np.asarray(image) for image in moved], -1).clip(0, 255)
        out[..., :3] = np.where(out[..., 3:] > 0, out[..., :3] / np.maximum(out[..., 3:] / 255, 1e-3), 0)
        return np.round(out.clip(0, 255)).astype(np.uint8)

    return change


def style(seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """A technique, uint8 `[edge, edge, 4]` to the same: a print in one ink, a coloured drawing, coarse pixels, or two of them."""
    rng = np.random.default_rng((31, seed))

    def colour(value: float, saturation: float) -> tuple[float, ...]:
        hue = rng.uniform(*NOT_BLUE) % 1
        return tuple(255 * v for v in colorsys.hsv_to_rgb(hue, saturation * rng.uniform(0.2, 1), value))

    stops = colour(rng.uniform(0.05, 0.4), 1), colour(rng.uniform(0.35, 0.8), 1), colour(rng.uniform(0.8, 1), 0.5)
    if rng.random() < 0.25:
        stops = stops[::-1]  # a negative
    pen, paper, cells = colour(rng.uniform(0.1, 0.6), 1), colour(rng.uniform(0.8, 1), 0.6), int(rng.choice((8, 16, 32)))
    kind = rng.choice(4, p=(0.55, 0.2, 0.1, 0.15))
    return (
        lambda rgba: toned(rgba, stops),
        lambda rgba: sketch(rgba, paper, pen),
        lambda rgba: pixel(rgba, cells),
        lambda rgba: toned(pixel(rgba, cells), stops),
    )[kind]
