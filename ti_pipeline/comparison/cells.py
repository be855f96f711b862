"""A cell is one concept, arm and seed: what it depends on, and where its numbers and pictures lie.

The output holds the cells of what is compared now and no others, so it follows from its inputs. Those that are not asked for any more
are put aside in the scratch folder and come back from there when they are.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ti_pipeline.comparison.arms import Arm, arms
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.report import PICTURES, PROMPT
from ti_pipeline.files import digest_value, write_json, write_text
from ti_pipeline.params import Params, Train
from ti_pipeline.workspace import COMPARING, Workspace

VERSION = 1  # raised whenever the same inputs give other numbers
LENGTH = 32  # hexadecimal digits of a digest that names a file
FAILED = "failed"  # in the place of numbers, why there are none
SAMPLING = ("samples", "samples_per_prompt", "step_samples", "step_samples_per_prompt", "solver", "solver_steps")


@dataclass(frozen=True)
class Lesson:
    """What a word is learnt from: `manifest` has the pictures, `train` the settings that the concept and the arm have between them.

    `word` is the digest of all that the word depends on; those of two arms that differ in drawing only are the same.
    """

    name: str
    manifest: Manifest
    train: Train
    seed: int
    word: str


@dataclass(frozen=True)
class Cell:
    """`digest` is that of all that its numbers depend on: cells that are the same by it share their files.

    `lesson` is None where nothing is learnt; then `text` stands for the word, and where it is empty too the word is left out.
    """

    concept: str
    arm: str
    seed: int
    digest: str
    guidance_scale: float
    lesson: Lesson | None = None
    text: str = ""
    steps: tuple[int, ...] = ()
    """After which a word is measured before its end."""


@dataclass(frozen=True)
class Wanted:
    """The cells of one concept, the references first; `left_out` {arm: why it has none}."""

    manifest: Manifest
    cells: list[Cell]
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Digests:
    """Of the models of a run. The ranker's counts for a word where it chooses the initializer, or the setup looks; `encoders` are the
    text encoders that learn and `density` that of the noise levels that they learn from, where they are not the family's own choice."""

    generator: str
    ranker: str
    judge: str
    encoders: tuple[str, ...] = ()
    density: str | None = None


def wanted(params: Params, manifest: Manifest, digests: Digests) -> Wanted:
    """What is to be measured of a concept, by the settings alone; nothing is loaded for it."""
    section, cells, left_out = params.compare, [], {}
    about = _about(params, manifest, digests)

    def cell(arm: str, seed: int, scale: float, of: dict[str, Any], **rest: Any) -> Cell:
        return Cell(manifest.slug, arm, seed, digest_value([about, of, seed, scale]), scale, **rest)

    made = arms(params)
    if made:
        cells.append(cell(PICTURES, 0, 1.0, {"reference": PICTURES}))
        cells += [cell(PROMPT, seed, section.guidance_scale, {"reference": PROMPT}) for seed in section.seeds]
    for arm in made:
        try:
            for seed in section.seeds:
                if arm.caption:
                    text = _caption(manifest, arm.caption)
                    cells.append(cell(arm.name, seed, arm.guidance_scale, {"text": text}, text=text))
                else:
                    lesson = _lesson(params, manifest, arm, seed, digests)
                    steps = lesson.train.keep_steps
                    cells.append(
                        cell(arm.name, seed, arm.guidance_scale, {"word": lesson.word, "steps": steps}, lesson=lesson, steps=steps)
                    )
        except ConceptError as error:
            left_out[arm.name] = error.reason
    return Wanted(manifest, cells, left_out)


def _about(params: Params, manifest: Manifest, digests: Digests) -> dict[str, Any]:
    """What the numbers of all cells of a concept depend on."""
    return {
        "version": VERSION,
        "models": [digests.generator, digests.ranker, digests.judge, params.generator.precision],
        **_changed(params),
        "concept": manifest.training_digest,
        "prompts": params.evaluate.prompts.get(manifest.kind),
        "sampling": params.compare.model_dump(mode="json", include=set(SAMPLING)),
    }


def _changed(params: Params) -> dict[str, Any]:
    """What is set of the generator beside its precision; nothing for one as it comes, so that what stands stays."""
    more = {key: value for key, value in params.generator.decisive().items() if key != "precision"}
    return {"generator": more} if more else {}


def _lesson(params: Params, manifest: Manifest, arm: Arm, seed: int, digests: Digests) -> Lesson:
    """Raises ConceptError for a concept that the arm cannot be learnt of."""
    from ti_pipeline.inversion.job import VERSION as TRAINING

    if manifest.start and manifest.start.token:
        raise ConceptError(manifest.slug, f"it goes on from {manifest.start.name}, and a comparison reads no word that was learnt before")
    said = (("vectors", manifest.vectors), ("steps", manifest.steps))
    vectors, steps = (getattr(arm.train, key) if key in arm.changes else of for key, of in said)
    own = replace(manifest, vectors=vectors, steps=steps)  # what the arm says counts
    if arm.pictures is not None:
        if arm.pictures > len(manifest.pictures):
            raise ConceptError(manifest.slug, f"it has {len(manifest.pictures)} pictures, fewer than {arm.pictures}")
        own = with_first(own, arm.pictures)
    settings = arm.train.for_concept(own)
    looks = settings.chosen.looks or not manifest.initializer
    train = settings.model_copy(update={"keep_steps": tuple(step for step in params.compare.steps if step < settings.steps)})
    depends = {
        "version": TRAINING,
        "models": [digests.generator, params.generator.precision, digests.ranker if looks else ""],
        **_changed(params),
        **({"encoders": digests.encoders} if digests.encoders else {}),
        **({"density": digests.density} if digests.density else {}),
        "concept": own.training_digest,
        "train": train.decisive(),
        "seed": seed,
    }
    return Lesson(f"{manifest.slug}/{arm.name}/{seed}", own, train, seed, digest_value(depends))


def with_first(manifest: Manifest, pictures: int | None) -> Manifest:
    """A concept of the first so many of its pictures; of all where there are no more, or no number is given."""
    if pictures is None or pictures >= len(manifest.pictures):
        return manifest
    digest = digest_value([manifest.training_digest, pictures])
    return replace(manifest, pictures=manifest.pictures[:pictures], training_digest=digest)


def _caption(manifest: Manifest, which: str) -> str:
    try:
        return manifest.human_captions[which]
    except KeyError:
        raise ConceptError(manifest.slug, f"concept.yaml has no human_captions.{which}") from None


@dataclass(frozen=True)
class Files:
    """Where the cells and words of a workspace lie."""

    workspace: Workspace

    @property
    def folder(self) -> Path:
        return self.workspace.comparison / "cells"

    @property
    def scratch(self) -> Path:
        return self.workspace.artifacts / COMPARING

    def path(self, cell: Cell) -> Path:
        """Numbers as JSON, written last. Pictures and seconds lie beside it, with other endings."""
        return self.folder / cell.concept / f"{cell.digest[:LENGTH]}.json"

    def strip(self, cell: Cell) -> Path:
        """The first picture of the neutral prompt and of each other, beside each other."""
        return self.path(cell).with_suffix(".webp")

    def seconds(self, cell: Cell) -> Path:
        """How long it took to learn: the only thing in the output that is another each time."""
        return self.path(cell).with_suffix(".seconds")

    def word(self, lesson: Lesson, step: int | None = None) -> Path:
        """The word at its end, written last, or after a step."""
        name = lesson.word[:LENGTH] + ("" if step is None else f"-{step}")
        return self.scratch / "words" / lesson.manifest.slug / f"{name}.safetensors"

    def taken(self, lesson: Lesson) -> Path:
        """The seconds that the word took to learn."""
        return self.word(lesson).with_suffix(".seconds")

    def checkpoint(self, pack: str) -> Path:
        return self.scratch / f"{pack}.safetensors"

    def stands(self, cell: Cell) -> bool:
        """Whether it is there with its pictures; one that could not be learnt has none."""
        return self.path(cell).is_file() and (self.strip(cell).is_file() or FAILED in (self.read(cell) or {}))

    def read(self, cell: Cell) -> dict[str, Any] | None:
        """Its numbers; None when there are none yet, or they cannot be read and have to be measured again."""
        try:
            numbers = json.loads(self.path(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return numbers if isinstance(numbers, dict) else None

    def read_seconds(self, cell: Cell) -> float | None:
        try:
            return float(self.seconds(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write(self, cell: Cell, numbers: dict[str, Any]) -> None:
        if cell.lesson and self.taken(cell.lesson).is_file():
            write_text(self.seconds(cell), self.taken(cell.lesson).read_text(encoding="utf-8"))
        write_json(self.path(cell), numbers)

    def bring_back(self, cell: Cell) -> bool:
        """Whether the cell stands, or stood aside and does now."""
        if not self.stands(cell):
            _move(self._aside(cell.concept), self.folder / cell.concept, self.path(cell).stem)
        return self.stands(cell)

    def put_aside(self, concept: str, cells: Collection[Cell]) -> None:
        """Whatever lies in the concept's folder and is of none of `cells`."""
        kept = {self.path(cell).stem for cell in cells}
        for stem in sorted({path.stem for path in _files(self.folder / concept)} - kept):
            _move(self.folder / concept, self._aside(concept), stem)

    def _aside(self, concept: str) -> Path:
        return self.scratch / "cells" / concept


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("[!.]*") if path.is_file()) if folder.is_dir() else iter(())


def _move(source: Path, target: Path, stem: str) -> None:
    """A cell's files to another folder, its numbers last."""
    for path in sorted(source.glob(f"{stem}.*"), key=lambda path: path.suffix == ".json"):
        target.mkdir(parents=True, exist_ok=True)
        os.replace(path, target / path.name)
