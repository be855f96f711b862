"""The step on the curve: likeness rises while a word is learnt and obedience to prompts falls; which step is the best compromise.

Both are put on one scale that does not depend on the steps: what the initializer gives is 0 of likeness and 1 of faithfulness, what the
pictures themselves give is 1 of likeness and 0 of faithfulness (the brackets of Gal et al. 2022, figure 10). So a weight means the same for
every concept, a further step moves no other, and a curve that is flat stays flat; standardised within the curve, its noise would decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import PLACE, left_out
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_value
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.previews import neutral_prompt
from ti_pipeline.sampling.sample import Settings, even_batch, sample
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.words.word import Word

VERSION = 1
FLAT = 1e-3  # ends of a scale that are nearer than this are no scale
SCHEMA = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        pa.field("likeness", pa.float64(), nullable=False),  # mean cosine of samples of the neutral prompt to the pictures
        pa.field("faithfulness", pa.float64(), nullable=False),  # mean cosine of samples of the other prompts to their texts
        pa.field("alike", pa.float64()),  # likeness on the scale from the initializer, 0, to the pictures, 1; null where there is none
        pa.field("faithful", pa.float64()),  # faithfulness on the scale from the pictures, 0, to the initializer, 1
        pa.field("score", pa.float64(), nullable=False),  # weighted sum of these two
        pa.field("chosen", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Eyes:
    """What draws and what looks."""

    generator: Generator
    ranker: Ranker


@dataclass(frozen=True)
class Seen:
    """The two cosines of one word, of the initializer, or of the pictures."""

    likeness: float
    faithfulness: float


def prompts_of(manifest: Manifest, train: params.Train) -> tuple[str, list[str]]:
    """The neutral prompt and the others. Raises ConceptError where there are none for the concept's kind."""
    prompts = train.compromise_prompts.get(manifest.kind)
    if not prompts:
        reason = f"there is no prompt to choose a step of a {manifest.kind} by. Add some under train.compromise_prompts.{manifest.kind}."
        raise ConceptError(manifest.slug, reason)
    return neutral_prompt(manifest, train), prompts


def look(
    eyes: Eyes, manifest: Manifest, train: params.Train, seed: int, words: Mapping[int, Word]
) -> tuple[dict[int, Seen], dict[str, Seen]]:
    """What CLIP sees of each word, and of the two ends of the scale, `initializer` and `pictures`.

    The same prompts and seeds for all. Each word's pictures are embedded by themselves and drawn in batches of one shape, so its numbers do
    not depend on the other steps.
    """
    neutral, prompts = prompts_of(manifest, train)
    texts = eyes.ranker.texts([left_out(prompt) for prompt in prompts]).astype(np.float64)
    pictures = eyes.ranker.images([manifest.open(picture) for picture in manifest.pictures]).astype(np.float64)
    each = train.compromise_samples
    wanted = [prompt for prompt in (neutral, *prompts) for _ in range(each)]
    seeds = [_seed(seed, manifest.slug, prompt, i) for prompt in (neutral, *prompts) for i in range(each)]
    size = even_batch(len(wanted), "auto", eyes.generator.resolution)
    settings = Settings(train.preview_solver, train.preview_steps, train.preview_guidance_scale, "", size)

    def seen(word: Word | None, shown: str) -> Seen:
        said = {manifest.token: word} if word else {}
        drawn = sample(eyes.generator, [prompt.replace(PLACE, shown) for prompt in wanted], said, seeds, settings)
        found = eyes.ranker.images([picture for _, picture in drawn]).astype(np.float64)
        likeness = (found[:each] @ pictures.T).mean()
        return Seen(float(likeness), float((found[each:] * texts.repeat(each, axis=0)).sum(axis=1).mean()))

    steps = {step: seen(word, manifest.token) for step, word in words.items()}
    start = seen(None, next(iter(words.values())).class_words)
    return steps, {"initializer": start, "pictures": Seen(_among(pictures), float((pictures @ texts.T).mean()))}


def choose(steps: Mapping[int, Seen], ends: Mapping[str, Seen], weight: float) -> list[dict[str, Any]]:
    """Rows of SCHEMA, by step; of steps that are equally good the last is chosen.

    A measure whose ends are in the wrong order, or too near to each other, tells nothing of this concept and counts nothing.
    """
    start, pictures = ends["initializer"], ends["pictures"]
    rows: list[dict[str, Any]] = []
    for step, seen in sorted(steps.items()):
        alike = _share(seen.likeness, start.likeness, pictures.likeness)
        faithful = _share(seen.faithfulness, pictures.faithfulness, start.faithfulness)
        score = weight * (alike or 0.0) + (1 - weight) * (faithful or 0.0)
        both = {"likeness": seen.likeness, "faithfulness": seen.faithfulness, "alike": alike, "faithful": faithful}
        rows.append({"step": step, **both, "score": score})
    best = max(rows, key=lambda row: (row["score"], row["step"]))
    return [row | {"chosen": row is best} for row in rows]


def _share(value: float, low: float, high: float) -> float | None:
    return (value - low) / (high - low) if high - low >= FLAT else None


def _among(pictures: np.ndarray) -> float:
    """How alike the pictures are to each other; a single one is as alike to itself as anything can be."""
    pairs = pictures @ pictures.T
    count = len(pictures)
    return float((pairs.sum() - np.trace(pairs)) / (count * (count - 1))) if count > 1 else 1.0


def _seed(seed: int, concept: str, prompt: str, index: int) -> int:
    return int(digest_value(["compromise", seed, concept, prompt, index])[:8], 16)
