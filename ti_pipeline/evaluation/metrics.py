"""Reconstruction and editability with their bootstrap intervals. Pure numpy; embeddings are L2-normalised `[n, d]`.

Gal et al. 2022, section 5.2. The pictures of a set are what is to be met and stay as they are; the samples are drawn
at random, so an interval says what other seeds would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
AT_ONCE = 1 << 22  # shares that are drawn at a time: 32 MB
DECIMALS = 6  # float32 cosines carry no more


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, from `n` samples."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int]:
        return {"value": round(self.value, DECIMALS), "low": round(self.low, DECIMALS), "high": round(self.high, DECIMALS), "n": self.n}


def alike(samples: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """Mean cosine of each sample to all pictures of the set, `[n]`; its mean is the mean over all pairs."""
    return (samples.astype(np.float64) @ pictures.astype(np.float64).T).mean(axis=1)


def alike_among(pictures: np.ndarray) -> np.ndarray:
    """Mean cosine of each picture to the others of its own set, `[n]`, no picture with itself. Needs two."""
    pairs = pictures.astype(np.float64) @ pictures.astype(np.float64).T
    return (pairs.sum(axis=1) - np.diag(pairs)) / (len(pictures) - 1)


def drawings(n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` resamples of n things with replacement, as shares `[count, n]` that add up to 1."""
    return rng.multinomial(n, np.full(n, 1 / n), size=count) / n


def mean_estimate(values: np.ndarray, count: int, rng: np.random.Generator) -> Estimate:
    """The mean of `values` `[n]` with its percentile interval (Efron 1979)."""
    rows = max(1, AT_ONCE // len(values))
    drawn = [drawings(len(values), min(rows, count - start), rng) @ values for start in range(0, count, rows)]
    return _estimate(values.mean(), np.concatenate(drawn), len(values))


def editability(
    samples: Sequence[np.ndarray], texts: Sequence[np.ndarray], count: int, rng: np.random.Generator
) -> tuple[Estimate, Estimate]:
    """The paper's rule and the code's, over one or several prompts: `samples` `[n, d]` and the text `[d]` of each.

    Paper: the cosine of the samples' average embedding with the text. Published code: the average of each sample's
    cosine. Means over the prompts; resampled within each of them.
    """
    paper, code, paper_drawn, code_drawn = [], [], [], []
    for embeddings, text in zip((s.astype(np.float64) for s in samples), (t.astype(np.float64) for t in texts), strict=True):
        shares = drawings(len(embeddings), count, rng)
        of_all, of_each = faithfulness(embeddings, text)
        paper.append(of_all)
        code.append(of_each)
        paper_drawn.append(_cosine(shares @ embeddings, text))
        code_drawn.append(shares @ (embeddings @ text))
    n = sum(len(embeddings) for embeddings in samples)
    return _estimate(float(np.mean(paper)), np.mean(paper_drawn, axis=0), n), _estimate(
        float(np.mean(code)), np.mean(code_drawn, axis=0), n
    )


def faithfulness(samples: np.ndarray, text: np.ndarray) -> tuple[float, float]:
    """Of `samples` `[n, d]` to a text `[d]`, by the paper's rule and by the code's, as in `editability`."""
    samples, text = samples.astype(np.float64), text.astype(np.float64)
    return float(_cosine(samples.mean(axis=0), text)), float((samples @ text).mean())


def gain(start: np.ndarray, learnt: np.ndarray, goal: float, count: int, rng: np.random.Generator) -> Estimate | None:
    """How far likeness rises from the initializer word's samples towards the real pictures, in percent.

    `start` and `learnt` `[n]` are the likenesses of samples from the same seeds and are resampled in pairs; `goal` is the
    mean likeness of the real pictures among themselves. None where the word alone is as good as they are.
    """
    shares = drawings(len(learnt), count, rng)
    room = goal - start.mean()
    drawn_room = goal - shares @ start
    if room <= 0 or (drawn_room <= 0).any():
        return None
    return _estimate(100 * (learnt.mean() - start.mean()) / room, 100 * (shares @ (learnt - start)) / drawn_room, len(learnt))


def _cosine(embeddings: np.ndarray, text: np.ndarray) -> np.ndarray:
    return embeddings @ text / np.linalg.norm(embeddings, axis=-1)


def _estimate(value: float, drawn: np.ndarray, n: int) -> Estimate:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high), n)
