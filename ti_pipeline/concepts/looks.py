"""What a picture looks like in numbers, to warn of those that teach little."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image
from scipy import ndimage

_SIZE = 256  # pixels of the longer edge that pictures are measured at
_COARSE = 4  # pixels
_SPREAD_FLOOR = 0.02  # of cosines; pictures that are all alike would make the least difference an outlier


def luminance(image: Image.Image) -> np.ndarray:
    """Float array [h, w] from 0 to 255, shrunk to 256 pixels of the longer edge and never enlarged."""
    small = image.convert("L")
    small.thumbnail((_SIZE, _SIZE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def contrast(light: np.ndarray) -> float:
    """Standard deviation of the luminance; a blank picture has nearly none."""
    return float(light.std())


def sharpness(light: np.ndarray) -> float:
    """Variance of the Laplacian; a blurred picture has little."""
    return float(ndimage.laplace(light).var())


def detail(light: np.ndarray) -> float:
    """Fine detail relative to coarse, in the direction that has least of it; a picture that was moved has little in one.

    Squares of second differences over 1 pixel by those over 4; contrast has no part in it. 1 where a picture is too small to say.
    """
    if min(light.shape) <= 2 * _COARSE:
        return 1.0
    ratios = [_curvature(light, *way, 1) / max(_curvature(light, *way, _COARSE), 1e-9) for way in ((0, 1), (1, 0), (1, 1), (1, -1))]
    return float(min(ratios))


def _curvature(light: np.ndarray, down: int, right: int, step: int) -> float:
    height, width = light.shape

    def moved(by: int) -> np.ndarray:
        y, x = step + by * down * step, step + by * right * step
        return light[y : y + height - 2 * step, x : x + width - 2 * step]

    return float(np.square(2 * moved(0) - moved(1) - moved(-1)).mean())


def perceptual_hash(image: Image.Image) -> np.uint64:
    """64 bits of the low frequencies (pHash); near-duplicates differ in few of them."""
    bits = imagehash.phash(image).hash
    return np.packbits(bits.ravel()).view(">u8")[0].astype(np.uint64)


def nearest_earlier(hashes: list[np.uint64]) -> list[tuple[int, int] | None]:
    """For each picture the one before it that differs in the fewest bits: (index, bits); None for the first."""
    stack = np.array(hashes, dtype=np.uint64)
    nearest: list[tuple[int, int] | None] = [None] * min(len(hashes), 1)
    for index in range(1, len(hashes)):
        bits = np.bitwise_count(stack[:index] ^ stack[index])
        nearest.append((int(bits.argmin()), int(bits.min())))
    return nearest


def likeness_to_others(embeddings: np.ndarray) -> np.ndarray:
    """Median cosine of each picture to the others; `embeddings` [n, d] with unit rows, n > 1, gives [n]."""
    return np.nanmedian(_cosines(embeddings), axis=1)


def apart_from_all(embeddings: np.ndarray) -> np.ndarray:
    """Which pictures [n] are less like their nearest than any of the others is usually like the rest of them; n > 2."""
    cosines = _cosines(embeddings)
    apart = []
    for index, own in enumerate(cosines):
        others = np.delete(np.delete(cosines, index, axis=0), index, axis=1)
        apart.append(np.nanmax(own) < np.nanmedian(others, axis=1).min())
    return np.array(apart)


def _cosines(embeddings: np.ndarray) -> np.ndarray:
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, np.nan)
    return cosines


def outlier_scores(likeness: np.ndarray) -> np.ndarray:
    """Robust z-scores (median and median absolute deviation); high for pictures that are unlike the others."""
    middle = np.median(likeness)
    spread = max(float(np.median(np.abs(likeness - middle))), _SPREAD_FLOOR)
    return 0.6745 * (middle - likeness) / spread
