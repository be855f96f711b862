"""One concept's candidates while they are made: what is wanted, what is there, what is written when all of it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ti_pipeline.candidates.briefs import Brief
from ti_pipeline.candidates.files import SCHEMA, sweep, write_picture
from ti_pipeline.candidates.looks import Clip, write_looks
from ti_pipeline.candidates.recipe import Recipe
from ti_pipeline.files import digest_file, write_table
from ti_pipeline.words.word import Word

if TYPE_CHECKING:
    from ti_pipeline.generators.generator import Condition


@dataclass(frozen=True)
class Order:
    """What is wanted of one concept: its briefs, the learnt words in them by token, and the digest that it stands under."""

    briefs: list[Brief]
    words: dict[str, Word]
    fingerprint: str


@dataclass(frozen=True)
class Planned:
    """One candidate before it is made; `parameters` is the recipe for other tools."""

    brief: Brief
    recipe: Recipe
    file: str
    parameters: str


@dataclass(frozen=True)
class Place:
    """Where a concept's candidates go, with the table that names them, and where what CLIP saw in them."""

    table: Path
    looks: Path

    @property
    def folder(self) -> Path:
        return self.table.parent


@dataclass(eq=False)
class Sheet:
    """All candidates of a concept, which of them are still to be made (`missing`, of which `left`), and what the table says of them.

    `broken` is why its files cannot be written.
    """

    concept: str
    order: Order
    plan: list[Planned]
    missing: list[Planned]
    place: Place
    about: Mapping[str, str]
    left: int = 0
    heard: tuple[dict[str, Condition], Condition] | None = None  # its prompts, and its negative prompt
    pictures: dict[str, Image.Image] = field(default_factory=dict)  # by file, until CLIP has looked at them
    broken: OSError | None = None

    @property
    def made(self) -> int:
        """How many of the missing are made by now."""
        return len(self.missing) - self.left

    def write(self, candidate: Planned, picture: Image.Image, keep: bool) -> None:
        if self.broken is None:
            try:
                write_picture(self.place.folder / candidate.file, picture, candidate.recipe, candidate.parameters)
                if keep:
                    self.pictures[candidate.file] = picture
            except OSError as error:
                self.broken = error

    def close(self, clip: Clip | None) -> None:
        """Write the table once all pictures are there, then remove those that it does not name."""
        try:
            if self.broken is None:
                rows = [self._row(candidate) for candidate in self.plan]
                if clip is not None:
                    write_looks(self.place.looks, clip.digest, [row["digest"] for row in rows], self._look(clip))
                write_table(self.place.table, rows, SCHEMA, self.about)
                sweep(self.place.folder, {candidate.file for candidate in self.plan})
        except OSError as error:
            self.broken = error

    def _look(self, clip: Clip) -> np.ndarray:
        """Embeddings of the candidates [n, d], brief by brief as the stage `rank` does it, so that the bits are the same."""

        def picture(candidate: Planned) -> Image.Image:
            if (made := self.pictures.pop(candidate.file, None)) is not None:
                return made
            with Image.open(self.place.folder / candidate.file) as standing:  # made before this run was started
                return standing.convert("RGB")

        briefs = groupby(self.plan, key=lambda candidate: candidate.brief.index)
        return np.concatenate([clip.images([picture(candidate) for candidate in brief]) for _, brief in briefs])

    def _row(self, planned: Planned) -> dict:
        brief, recipe = planned.brief, planned.recipe
        same = ("candidate", "prompt", "seed", "solver", "steps", "guidance_scale", "negative_prompt", "width", "height")
        return {
            "concept": self.concept,
            "brief_index": brief.index,
            "brief": brief.text,
            "scoring_text": brief.scoring_text,
            **{key: recipe[key] for key in same},
            "file": planned.file,
            "digest": digest_file(self.place.folder / planned.file),
        }
