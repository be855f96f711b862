"""Pictures of words as they are while they are learnt: the same prompt and seed at every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import PLACE
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_value
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.inversion.strip import frame_path, read_frame, write_frame
from ti_pipeline.sampling.sample import Settings, encode_negative, sample_conditions
from ti_pipeline.words.word import Word

BATCH = 4  # pictures that are drawn at a time, always: a picture's bits depend on it


@dataclass(frozen=True)
class Film:
    """One concept's previews: where they go, what is drawn, the digest of all that they depend on."""

    folder: Path
    token: str
    prompt: str
    seed: int
    fingerprint: str

    def missing(self, words: Mapping[int, Word]) -> list[Frame]:
        """Of `words` by their steps, those of which there is no picture yet."""
        return [
            Frame(self, step, word)
            for step, word in words.items()
            if read_frame(frame_path(self.folder, step), self.fingerprint) is None
        ]  # fmt: skip

    def pictures(self, generator: Generator, words: Mapping[int, Word], train: params.Train) -> dict[int, Image.Image]:
        """A picture of each word; those that are not there are drawn."""
        draw(generator, self.missing(words), train)
        found = {step: read_frame(frame_path(self.folder, step), self.fingerprint) for step in words}
        return {step: picture for step, picture in found.items() if picture}


@dataclass(frozen=True)
class Frame:
    """One of its pictures, still to be drawn."""

    film: Film
    step: int
    word: Word


def neutral_prompt(manifest: Manifest, train: params.Train) -> str:
    """`train.preview_prompt` for the concept's kind. Raises ConceptError where there is none."""
    if prompt := train.preview_prompt.get(manifest.kind):
        return prompt
    reason = f"there is no prompt to draw a {manifest.kind} with while it trains. Add train.preview_prompt.{manifest.kind}."
    raise ConceptError(manifest.slug, reason)


def preview_seed(seed: int, concept: str) -> int:
    return int(digest_value(["preview", seed, concept])[:8], 16)


def draw(generator: Generator, frames: Iterable[Frame], train: params.Train) -> None:
    """Draw frames of any concepts together; each is on disk as soon as it is drawn."""
    todo = list(frames)
    if not todo:
        return
    settings = Settings(train.preview_solver, train.preview_steps, train.preview_guidance_scale, "", BATCH)
    negative = encode_negative(generator, "", {})

    @torch.no_grad()
    def heard(i: int) -> tuple[Condition, Condition]:
        frame = todo[i]
        prompt = frame.film.prompt.replace(PLACE, frame.film.token)
        return encode(generator, [prompt], {frame.film.token: frame.word}), negative

    for i, picture in sample_conditions(generator, heard, [frame.film.seed for frame in todo], settings):
        write_frame(frame_path(todo[i].film.folder, todo[i].step), picture, todo[i].film.fingerprint)
