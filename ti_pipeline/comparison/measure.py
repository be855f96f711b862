"""Draws with the words of many cells in common batches, and measures each cell as the stage `evaluate` measures a word.

Every batch has one shape and every cell is looked at by itself, so its numbers do not depend on what else is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ti_pipeline.comparison.cells import Cell
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import PLACE
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.draw import Seen, Studio, sample_seed
from ti_pipeline.evaluation.measure import RECONSTRUCTION, left_out
from ti_pipeline.evaluation.metrics import DECIMALS, alike, alike_among, faithfulness
from ti_pipeline.files import atomic
from ti_pipeline.generators.generator import Condition
from ti_pipeline.generators.placeholder import check_prompt
from ti_pipeline.params import Compare
from ti_pipeline.sampling.sample import encode_negative, encode_texts, sample_conditions
from ti_pipeline.words.files import read_word
from ti_pipeline.words.word import Word

TILE = 128  # pixels of an edge that a picture of the report has at most
QUALITY = 82


@dataclass(frozen=True)
class Point:
    """A word at a step, None being its end: how many pictures of the neutral prompt and of each other are drawn of it."""

    step: int | None
    samples: int
    per_prompt: int

    def count(self, prompts: int) -> int:
        return self.samples + self.per_prompt * prompts


@dataclass(frozen=True)
class Sitting:
    """A cell that is to be drawn and measured. `word` reads it as it was after a step; `subject` is what all cells of a concept share."""

    cell: Cell
    subject: Subject
    section: Compare
    word: Callable[[int | None], Path]

    @cached_property
    def points(self) -> list[Point]:
        section = self.section
        each = [Point(step, min(section.step_samples, section.samples), self._per_prompt) for step in self.cell.steps]
        return [*each, Point(None, section.samples, section.samples_per_prompt)]

    @property
    def _per_prompt(self) -> int:
        return min(self.section.step_samples_per_prompt, self.section.samples_per_prompt)

    @cached_property
    def pictures(self) -> list[tuple[int | None, str, int]]:
        """Of each picture the step of its word, its prompt, and its seed, which is the same for all arms."""
        slug, prompts, found = self.subject.manifest.slug, self.subject.prompts, []
        for point in self.points:
            wanted = [(self.subject.neutral, i) for i in range(point.samples)]
            wanted += [(prompt, i) for prompt in prompts for i in range(point.per_prompt)]
            found += [(point.step, prompt, sample_seed(self.cell.seed, slug, prompt, i)) for prompt, i in wanted]
        return found

    def said(self, prompt: str) -> str:
        """The prompt as this cell says it."""
        cell, subject = self.cell, self.subject
        if cell.lesson:
            return prompt.replace(PLACE, subject.manifest.token)
        if cell.text:
            return prompt.replace(PLACE, cell.text)
        return prompt.replace(PLACE, subject.initializer) if prompt == subject.neutral else left_out(prompt)

    def words(self, step: int | None) -> dict[str, Word]:
        token = self.subject.manifest.token
        return {token: read_word(self.word(step), token)} if self.cell.lesson else {}

    def check(self, studio: Studio) -> None:
        """Raise ConceptError for a prompt that the generator would not read to its end."""
        lengths = {self.subject.manifest.token: self.cell.lesson.train.longest} if self.cell.lesson else {}
        for prompt in (self.subject.neutral, *self.subject.prompts):
            check_prompt(studio.generator, self.subject.manifest.slug, self.said(prompt), lengths)


class Subject:
    """A concept as all of its cells are held against it. Raises ConceptError for a kind that there are no prompts for."""

    def __init__(self, studio: Studio, manifest: Manifest, prompts: Sequence[str] | None, initializer: str):
        if not prompts:
            reason = f"there is no prompt to evaluate a {manifest.kind} with. Add some under evaluate.prompts.{manifest.kind}."
            raise ConceptError(manifest.slug, reason)
        self.manifest, self.prompts, self.initializer = manifest, list(prompts), initializer
        self.neutral = RECONSTRUCTION[manifest.kind]
        pictures = [manifest.open(picture) for picture in manifest.pictures]
        self.seen, self.strip = studio.look(pictures), strip(pictures[: len(prompts) + 1])
        self.texts = studio.ranker.texts([left_out(prompt) for prompt in prompts])

    def of_pictures(self) -> dict[str, Any]:
        """The reference "image only": the pictures are the samples, and none is held against itself."""
        among = alike_among(self.seen.judged).mean() if len(self.seen.judged) > 1 else None
        return self._numbers(among, [self.seen.clip] * len(self.prompts))

    def of_point(self, point: Point, seen: Seen) -> dict[str, Any]:
        each, start = point.per_prompt, point.samples
        parts = [seen.clip[start + k * each : start + (k + 1) * each] for k in range(len(self.prompts))] if each else []
        return self._numbers(alike(seen.judged[:start], self.seen.judged).mean(), parts)

    def _numbers(self, likeness: float | None, parts: list[np.ndarray]) -> dict[str, Any]:
        of_prompts = [faithfulness(part, text) for part, text in zip(parts, self.texts, strict=False)]
        paper, code = (list(each) for each in zip(*of_prompts, strict=True)) if of_prompts else ([], [])
        means = {"reconstruction": likeness, "editability": _mean(paper), "editability_per_sample": _mean(code)}
        numbers: dict[str, Any] = {name: None if value is None else round(float(value), DECIMALS) for name, value in means.items()}
        return numbers | {"prompts": {prompt: round(value, DECIMALS) for prompt, value in zip(self.prompts, paper, strict=False)}}


def measure(
    studio: Studio, sittings: Sequence[Sitting], drawn: Callable[[], None]
) -> Iterator[tuple[Sitting, dict[str, Any], Image.Image]]:
    """The numbers and the strip of pictures of each, in their order; `drawn` is called for each picture.

    All of them have the guidance of the studio's settings.
    """
    negative = encode_negative(studio.generator, "", {})
    ends = list(accumulate(len(sitting.pictures) for sitting in sittings))
    place, heard = -1, _Heard(studio, sittings[0])

    def of(index: int) -> tuple[Condition, Condition]:
        nonlocal place, heard
        at = next(i for i in range(max(place, 0), len(ends)) if index < ends[i])
        if at != place:
            place, heard = at, _Heard(studio, sittings[at])
        return heard(index - (ends[at - 1] if at else 0)), negative

    seeds = [seed for sitting in sittings for _, _, seed in sitting.pictures]
    waiting, done = [], 0
    for index, picture in sample_conditions(studio.generator, of, seeds, studio.settings):
        waiting.append(picture)
        drawn()
        if index + 1 == ends[done]:
            yield sittings[done], *_seen(studio, sittings[done], waiting)
            waiting, done = [], done + 1


class _Heard:
    """What the denoiser hears of the pictures of one cell; its word is read when the first of them is drawn."""

    def __init__(self, studio: Studio, sitting: Sitting):
        self.sitting = sitting
        self.conditions: dict[tuple[int | None, str], Condition] = {}
        for step in dict.fromkeys(step for step, _, _ in sitting.pictures):
            texts = [sitting.said(prompt) for at, prompt, _ in sitting.pictures if at == step]
            heard: Mapping[str, Condition] = encode_texts(studio.generator, texts, sitting.words(step))
            self.conditions |= {(step, text): condition for text, condition in heard.items()}

    def __call__(self, index: int) -> Condition:
        step, prompt, _ = self.sitting.pictures[index]
        return self.conditions[step, self.sitting.said(prompt)]


def _seen(studio: Studio, sitting: Sitting, pictures: list[Image.Image]) -> tuple[dict[str, Any], Image.Image]:
    subject, start, curve = sitting.subject, 0, []
    for point in sitting.points:
        own = pictures[start : start + point.count(len(subject.prompts))]
        seen = studio.look(own)
        if point.step is not None:
            curve.append({"step": point.step, **_without_prompts(subject.of_point(point, seen))})
        start += len(own)
    last = sitting.points[-1]
    numbers = subject.of_point(last, seen)
    if lesson := sitting.cell.lesson:
        numbers["steps"] = lesson.train.steps
    if curve:
        numbers["curve"] = [*curve, {"step": numbers["steps"], **_without_prompts(_as_curve(subject, sitting.points, seen))}]
    shown = [own[0], *(own[last.samples + k * last.per_prompt] for k in range(len(subject.prompts)))]
    return numbers, strip(shown)


def _as_curve(subject: Subject, points: Sequence[Point], seen: Seen) -> dict[str, Any]:
    """The last point measured on as many pictures as the others of a curve, the first of each prompt."""
    first, last = points[0], points[-1]
    rows = [*range(first.samples)]
    rows += [last.samples + k * last.per_prompt + i for k in range(len(subject.prompts)) for i in range(first.per_prompt)]
    return subject.of_point(first, Seen(seen.judged[rows], seen.clip[rows]))


def _without_prompts(numbers: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in numbers.items() if name != "prompts"}


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def strip(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures beside each other, each a square of at most TILE pixels."""
    edge = min(TILE, min(min(picture.size) for picture in pictures))
    whole = Image.new("RGB", (edge * len(pictures), edge))
    for place, picture in enumerate(pictures):
        whole.paste(ImageOps.fit(picture, (edge, edge), Image.Resampling.LANCZOS), (place * edge, 0))
    return whole


def write_strip(path: Path, whole: Image.Image) -> None:
    with atomic(path) as temporary:
        whole.save(temporary, format="WEBP", quality=QUALITY, method=4)
