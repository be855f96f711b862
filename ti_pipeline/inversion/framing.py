"""How a picture, and the mask of what counts in it, become what a generator learns from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

from PIL import Image, ImageOps

Fit = Literal["crop", "squash", "pad", "buckets"]
Size = tuple[int, int]
STEP = 64  # pixels between the sizes of buckets (Podell et al. 2023, arXiv 2307.01952, appendix I) …
PART = 8  # … or this part of the edge of a square, where that is less
LONGEST = 4  # longer edge over shorter edge, as there


@dataclass(frozen=True)
class Framing:
    """`fit` is how a picture gets the size that a generator learns at, `background` the colour that is put around it; with `flip` it is
    seen mirrored as well."""

    fit: Fit
    background: tuple[int, int, int]
    flip: bool = False

    def size(self, picture: Size, edge: int, grid: int) -> Size:
        """The size at which a picture is seen by a generator of squares of `edge` pixels, all sizes of which are multiples of `grid`."""
        return bucket(picture, edge, grid) if self.fit == "buckets" else (edge, edge)

    def fitted(self, picture: Image.Image, size: Size) -> Image.Image:
        """The centre is cut out, the whole is squashed, or it is put on the background colour; of a mask (L) nothing counts there."""
        how = Image.Resampling.LANCZOS
        if self.fit == "squash":
            return picture.resize(size, how)
        if self.fit == "pad":
            return ImageOps.pad(picture, size, how, color=0 if picture.mode == "L" else self.background)
        return ImageOps.fit(picture, size, how)


def bucket(picture: Size, edge: int, grid: int) -> Size:
    """The size whose aspect ratio is nearest to a picture's."""
    aspect = math.log(picture[0] / picture[1])
    return min(buckets(edge, grid), key=lambda size: abs(math.log(size[0] / size[1]) - aspect))


@cache
def buckets(edge: int, grid: int) -> tuple[Size, ...]:
    """Sizes of at most the area of the square, one side of each as long as the other leaves room for."""
    step = math.lcm(grid, min(STEP, max(grid, edge // PART)))
    sides = [(side, edge * edge // side // step * step) for side in range(step, LONGEST * edge, step)]
    fair = {(side, other) for side, other in sides if other and max(side, other) <= LONGEST * min(side, other)}
    return tuple(sorted(fair | {(other, side) for side, other in fair}))
