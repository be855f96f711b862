"""What a protocol has to say for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.texts import PLACE
from ti_pipeline.errors import ConceptError

MEASURES = ("dino", "clip_i", "clip_t")


@dataclass(frozen=True)
class Prompt:
    """`text` has `{token}` where the learnt word goes; pictures are held against the same with `subject` there: the class words."""

    text: str
    subject: str

    def drawn(self, token: str) -> str:
        return self.text.replace(PLACE, token)

    @property
    def read(self) -> str:
        return self.text.replace(PLACE, self.subject)


@dataclass(frozen=True)
class Published:
    """A row of somebody's table. `by` says what drew and what measured; a measure that they did not give is left out."""

    method: str
    by: str
    measures: Mapping[str, float]


@dataclass(frozen=True)
class Subject:
    """A concept as a protocol sees it. `own` are the prompts of its own in `protocol.prompts`, where there are any; `live` says whether
    its class words are among `protocol.live`."""

    manifest: Manifest
    class_words: str
    own: Sequence[str]
    live: bool


@dataclass(frozen=True)
class Set:
    """A concept in somebody's dataset: where its pictures are, its class words, and its own prompts, with `{}` for the subject."""

    slug: str
    pictures: Sequence[Path]
    class_words: str
    kind: str = "object"
    prompts: Sequence[str] = ()


@dataclass(frozen=True)
class Protocol:
    """How a subject is drawn and measured.

    `prompts` raises ConceptError where a concept has none. `samples` are the pictures of each; `text_scale` multiplies cosines of texts,
    of which none counts less than zero if it is not 1. `backbones` are what the authors measured with, `apart` what differs here.
    `sets` finds the concepts in the authors' own dataset, in the layout that it is downloaded in.
    """

    name: str
    source: str
    samples: int
    prompts: Callable[[Subject], list[Prompt]]
    backbones: str
    sampling: str
    published: Sequence[Published]
    sets: Callable[[Path], Iterator[Set]]
    text_scale: float = 1.0
    apart: Sequence[str] = ()


def own_prompts(subject: Subject) -> list[Prompt]:
    """Those that the protocol has for this subject alone. Raises ConceptError where there are none."""
    if not subject.own:
        slug = subject.manifest.slug
        raise ConceptError(
            slug,
            f"it has no prompts of its own, which this protocol needs. Put them into {slug}.txt in the folder that protocol.prompts names, "
            "one a line, with {} for the subject; `ti-pipeline protocol sets` writes them for the authors' dataset.",
        )
    return [Prompt(text.replace("{}", PLACE), subject.class_words) for text in subject.own]
