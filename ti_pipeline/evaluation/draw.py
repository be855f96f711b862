"""Fresh samples and what the two models see in them: embeddings are what is kept, and a few pictures for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image

from ti_pipeline.files import digest_value
from ti_pipeline.generators.generator import Generator
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sight.picture_model import BATCH, PictureModel
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.words.word import Word

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Seen:
    """Pictures as the judge and as the ranker's CLIP embed them, `[n, d]` each."""

    judged: np.ndarray
    clip: np.ndarray

    def part(self, rows: slice) -> Seen:
        return Seen(self.judged[rows], self.clip[rows])


@dataclass(frozen=True)
class Studio:
    """What every sample of a run is made and looked at with."""

    generator: Generator
    ranker: Ranker
    judge: PictureModel
    settings: Settings

    def look(self, pictures: list[Image.Image]) -> Seen:
        return Seen(self.judge.images(pictures), self.ranker.images(pictures))

    def draw(
        self,
        prompts: Sequence[str],
        words: Mapping[str, Word],
        seeds: Sequence[int],
        step: Callable[[], None],
        keep: Callable[[int, Image.Image], None] | None = None,
    ) -> Seen:
        """One sample for each prompt and its seed; `step` is called for each of them. A batch of pictures in memory at a time.

        `keep` is given every sample with its index.
        """
        parts, waiting = [], []
        for index, picture in sample(self.generator, prompts, words, seeds, self.settings):
            waiting.append(picture)
            if keep:
                keep(index, picture)
            step()
            if len(waiting) == BATCH or index == len(prompts) - 1:
                parts.append(self.look(waiting))
                waiting = []
        return Seen(np.concatenate([part.judged for part in parts]), np.concatenate([part.clip for part in parts]))


# Samples of prompts without any learnt word are the same for every concept of a kind; they last as long as their generator.
_shared: WeakKeyDictionary[Generator, dict[tuple[Any, ...], tuple[Seen, dict[int, Image.Image]]]] = WeakKeyDictionary()


def draw_shared(
    studio: Studio, prompts: tuple[str, ...], seeds: tuple[int, ...], step: Callable[[], None], chosen: frozenset[int] = frozenset()
) -> tuple[Seen, dict[int, Image.Image]]:
    """As `Studio.draw` without learnt words, but once for all concepts that are evaluated in this process; and the `chosen` pictures."""
    kept = _shared.setdefault(studio.generator, {})
    key = (studio.judge.digest, studio.ranker.digest, studio.settings, prompts, seeds, chosen)
    if key in kept:
        for _ in prompts:
            step()
    else:
        pictures: dict[int, Image.Image] = {}
        seen = studio.draw(prompts, {}, seeds, step, lambda i, picture: pictures.update({i: picture}) if i in chosen else None)
        kept[key] = seen, pictures
    return kept[key]


def sample_seed(seed: int, concept: str, prompt: str, index: int) -> int:
    """In [0, 2³²), and none of the gallery's candidates' but by chance. `prompt` has `{token}` in it."""
    return int(digest_value(["evaluation", seed, concept, prompt, index])[:8], 16)
