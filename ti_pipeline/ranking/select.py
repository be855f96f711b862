"""The order of one brief's candidates and the reason of each place. Pure numpy.

The rule: likeness and faithfulness are each put on the scale of the brief's candidates (z-scores, so that neither
counts more because it spreads more), then weighed and added; the best comes first. From the best down, a candidate
that CLIP finds as good as equal to a better one that is kept goes behind all that are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLAT = 1e-6  # a spread that float32 cosines have by rounding alone


@dataclass(frozen=True)
class Place:
    """Where one candidate stands. Places count from 1; `duplicate_of` is an index into the brief's candidates."""

    candidate: int
    place: int
    place_before: int
    score: float
    duplicate_of: int | None
    reason: str


def standardise(values: np.ndarray) -> np.ndarray:
    """z-scores `[n]` by the population's standard deviation; zeros where nothing tells the values apart."""
    values = np.asarray(values, dtype=np.float64)
    spread = values.std()
    return np.zeros_like(values) if spread < FLAT else (values - values.mean()) / spread


def combine(likeness: np.ndarray, faithfulness: np.ndarray, weight: float) -> np.ndarray:
    """weight · z(likeness) + (1 − weight) · z(faithfulness), `[n]`."""
    return weight * standardise(likeness) + (1 - weight) * standardise(faithfulness)


def competition_rank(values: np.ndarray) -> np.ndarray:
    """1 for the greatest; equal values share a rank."""
    return 1 + (values[None, :] > values[:, None]).sum(axis=1)


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th … 11th."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def push_down(order: np.ndarray, embeddings: np.ndarray, threshold: float) -> tuple[list[int], dict[int, tuple[int, float]]]:
    """Distinct candidates first, then near-duplicates, both in `order`; and for each near-duplicate of what, and how alike.

    A candidate is held against the distinct ones before it only: what is like a near-duplicate but not like the
    picture kept for it is a picture of its own. `embeddings` `[n, d]` are L2-normalised.
    """
    distinct: list[int] = []
    duplicates: dict[int, tuple[int, float]] = {}
    for candidate in order.tolist():
        if distinct:
            alike = embeddings[distinct] @ embeddings[candidate]
            nearest = int(alike.argmax())
            if alike[nearest] >= threshold:
                duplicates[candidate] = (distinct[nearest], float(alike[nearest]))
                continue
        distinct.append(candidate)
    return [*distinct, *duplicates], duplicates


def rank_candidates(likeness: np.ndarray, faithfulness: np.ndarray, embeddings: np.ndarray, weight: float, threshold: float) -> list[Place]:
    """Every candidate of one brief, best first. Equal scores keep the order in which the candidates were made."""
    score = combine(likeness, faithfulness, weight)
    order = np.argsort(-score, kind="stable")
    before = {candidate: place for place, candidate in enumerate(order.tolist(), start=1)}
    final, duplicates = push_down(order, embeddings, threshold)
    like, faith, count = competition_rank(likeness), competition_rank(faithfulness), len(score)
    places = []
    for place, candidate in enumerate(final, start=1):
        original, alike = duplicates.get(candidate, (None, 0.0))
        alike_of = f"likeness {ordinal(like[candidate])}, " if likeness.any() else ""  # without references there is none
        reason = f"{ordinal(place)} of {count}: {alike_of}faithfulness {ordinal(faith[candidate])}"
        if original is not None:
            moved = (
                f"pushed down from place {before[candidate]}"
                if place > before[candidate]
                else f"kept at place {place}, behind the distinct ones"
            )
            reason += f"; near-duplicate of candidate {original} ({alike:.3f}), {moved}"
        elif place < before[candidate]:
            reason += f"; moved up from place {before[candidate]} past near-duplicates"
        places.append(Place(candidate, place, before[candidate], float(score[candidate]), original, reason))
    return places
