"""Draws a subject as a protocol asks for it, and measures what comes of it as its authors do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import PLACE
from ti_pipeline.evaluation.draw import Progress, Studio, sample_seed
from ti_pipeline.evaluation.metrics import DECIMALS, alike, alike_among
from ti_pipeline.evaluation.protocols.protocol import Prompt, Protocol
from ti_pipeline.generators.placeholder import check_prompt, check_width
from ti_pipeline.words.word import Word


@dataclass(frozen=True)
class Order:
    """A subject that is to be drawn: `samples` of each of its prompts, from seeds that follow from `seed`."""

    manifest: Manifest
    word: Word
    prompts: Sequence[Prompt]
    samples: int
    seed: int


def measure_subject(studio: Studio, protocol: Protocol, order: Order, progress: Progress) -> dict[str, Any]:
    """DINO and CLIP-I: mean cosine over all pairs of a sample and a picture of the set, by the judge and by the ranker's CLIP. CLIP-T: mean
    cosine of a sample and its own prompt with the class words in it. `real` are the same of the pictures among themselves.

    Raises ConceptError for a prompt or a word that the generator cannot take.
    """
    slug, word, prompts = order.manifest.slug, order.word, order.prompts
    check_width(studio.generator, slug, word)
    texts = [prompt.drawn(word.token) for prompt in prompts for _ in range(order.samples)]
    for text in dict.fromkeys(texts):
        check_prompt(studio.generator, slug, text, {word.token: len(word)})
    seeds = [sample_seed(order.seed, slug, prompt.text, i) for prompt in prompts for i in range(order.samples)]
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, len(texts), "drawing samples")

    seen = studio.draw(texts, {word.token: word}, seeds, step)
    pictures = studio.look([order.manifest.open(picture) for picture in order.manifest.pictures])
    read = np.repeat(studio.ranker.texts([prompt.read for prompt in prompts]), order.samples, axis=0)
    cosines = (seen.clip.astype(np.float64) * read.astype(np.float64)).sum(axis=1)
    if protocol.text_scale != 1:
        cosines = protocol.text_scale * cosines.clip(min=0)  # CLIPScore: Hessel et al. 2021, arXiv 2104.08718
    measures = {"dino": alike(seen.judged, pictures.judged), "clip_i": alike(seen.clip, pictures.clip), "clip_t": cosines}
    real = {}
    if len(pictures.judged) > 1:
        real = {"dino": alike_among(pictures.judged), "clip_i": alike_among(pictures.clip)}
    return {
        "measures": _means(measures),
        "real": _means(real),
        "prompts": len(prompts),
        "samples": order.samples,
        "unnamed": [prompt.text for prompt in prompts if PLACE not in prompt.text],
        "pictures": len(pictures.judged),
    }


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: round(float(of.mean()), DECIMALS) for name, of in values.items()}
