"""Words that other words go on from, when these are learnt."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ti_pipeline.concepts.start import KEY, Start
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file
from ti_pipeline.generators.placeholder import check_width, numbers
from ti_pipeline.generators.reader import Reader
from ti_pipeline.words.foreign import read_foreign
from ti_pipeline.words.word import ONLY, Word

if TYPE_CHECKING:
    from ti_pipeline.generators.generator import Generator

T = TypeVar("T")


def read_start(concept: str, start: Start) -> Word:
    """The one word of a file in the concept's folder, as a tool has written it. Raises ConceptError."""
    assert start.path
    try:
        if digest_file(start.path) != start.digest:
            raise ConceptError(concept, f"{start.name} has changed since it was validated. Run `ti-pipeline validate {concept}`.")
        found = read_foreign(start.path)
    except (ParamsError, OSError) as error:
        raise ConceptError(concept, f"{KEY}: {error}") from None
    if len(found) > 1:
        names = ", ".join(sorted(each.name for each in found))
        raise ConceptError(concept, f"{KEY}: {start.name} has {len(found)} words: {names}. Give a file with one.")
    word = found[0]
    return Word(word.name or start.name, word.rows, word.about.get("initializer", ""), digest=start.digest)


def measured(concept: str, start: Start, folder: Path) -> Start:
    """A file in the folder, with what it holds. Raises ConceptError."""
    if start.token:
        return start
    rows = read_start(concept, replace(start, path=folder / start.name)).rows
    return replace(start, shapes={encoder: (len(of), of.shape[1]) for encoder, of in rows.items()})


def fitted(rows: Mapping[str, T], encoders: Collection[str]) -> Mapping[str, T]:
    """What a word has for each of a model's text encoders. Tools with several name the only one of another model as if it were theirs."""
    return {ONLY: rows["clip_l"]} if list(encoders) == [ONLY] and list(rows) == ["clip_l"] else rows


def for_generator(word: Word, concept: str, name: str, generator: Generator) -> Word:
    """The word as a concept of this generator goes on from it. Raises ConceptError for one of another."""
    word = replace(word, rows=fitted(word.rows, generator.encoders))
    check_start(concept, name, {encoder: rows.shape[1] for encoder, rows in word.rows.items()}, generator)
    check_width(generator, concept, word)
    return word


def check_start(concept: str, name: str, widths: Mapping[str, int], reader: Reader) -> None:
    """Raise ConceptError where a word that is gone on from has not a vector for each text encoder that learns, and no other."""
    own = {encoder: each.width for encoder, each in reader.learning.items()}
    if dict(fitted(widths, own)) != own:
        raise ConceptError(
            concept,
            f"{KEY}: the vectors of {name} have {numbers(widths)}, and {reader.name} learns {numbers(own)}. Start from a word of this "
            "model, or from an `initializer`.",
        )
