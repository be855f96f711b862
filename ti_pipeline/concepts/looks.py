"""What a picture looks like in numbers, to warn of those that teach little."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image
from scipy import ndimage

_SIZE = 256  # pixels of the longer edge that pictures are measured at
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
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, np.nan)
    return np.nanmedian(cosines, axis=1)


def outlier_scores(likeness: np.ndarray) -> np.ndarray:
    """Robust z-scores (median and median absolute deviation); high for pictures that are unlike the others."""
    middle = np.median(likeness)
    spread = max(float(np.median(np.abs(likeness - middle))), _SPREAD_FLOOR)
    return 0.6745 * (middle - likeness) / spread
