"""What a concept's word goes on from, where its `concept.yaml` says so: a file in its folder, or another concept's word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.errors import ConceptError

if TYPE_CHECKING:
    from ti_pipeline.concepts.concept import Concept

KEY = "concept.yaml: `start_from`"


@dataclass(frozen=True)
class Start:
    """`name` is that of a file, of which `digest` is the SHA-256, or another word's token. Of a file it is known, once it is validated,
    how many vectors of how many numbers it has: `shapes`, by text encoder."""

    name: str
    digest: str = ""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    path: Path | None = None

    @property
    def token(self) -> str:
        """Of the word that it is, in lower case; empty for a file."""
        return "" if self.digest else self.name.lower()

    @property
    def vectors(self) -> int | None:
        return max((count for count, _ in self.shapes.values()), default=None)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "digest": self.digest, "shapes": self.shapes}

    @classmethod
    def of_json(cls, said: Mapping[str, Any], folder: Path) -> Start:
        shapes = {encoder: (count, width) for encoder, (count, width) in said["shapes"].items()}
        return cls(said["name"], said["digest"], shapes, folder / said["name"] if said["digest"] else None)


def astray(concepts: Sequence[Concept]) -> Iterator[ConceptError]:
    """What is wrong with those that go on from a word that nobody has, or at last from themselves."""
    owners = {concept.token.lower(): concept for concept in concepts}
    for concept in concepts:
        way = [concept]
        while (start := way[-1].start) and start.token:
            if start.token not in owners:
                who = "" if len(way) == 1 else f", which {way[-1].slug} goes on from,"
                reason = f"{start.name}{who} is the word of no concept here that can be used. Name another, or a file."
                yield ConceptError(concept.slug, f"{KEY}: {reason}")
                break
            if owners[start.token] in way:
                circle = " → ".join([*(each.token for each in way), start.name])
                yield ConceptError(concept.slug, f"{KEY}: this is a circle: {circle}. One of them has to start from an `initializer`.")
                break
            way.append(owners[start.token])
