"""A prompt that somebody typed, as a brief: the learnt words in it, and what CLIP is to read in their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property

from ti_pipeline.candidates.briefs import Brief, words_in
from ti_pipeline.candidates.sheet import Order
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.concepts.texts import LONGEST, PLACE, WORD, check_places, cut, one_line
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.generators.placeholder import check_prompt
from ti_pipeline.generators.reader import Reader
from ti_pipeline.words.learnt import Words, load_own
from ti_pipeline.words.word import Word
from ti_pipeline.workspace import Workspace

NAMED = 12  # words, in a message


@dataclass(frozen=True)
class Known:
    """The words that a prompt may name: those that the concepts of a workspace have learnt, and `others` by their token in lower case,
    which come first."""

    workspace: Workspace
    others: Mapping[str, Word] = field(default_factory=dict)

    @cached_property
    def _learnt(self) -> Words:
        return Words(self.workspace)

    def tokens(self) -> list[str]:
        return sorted({*self._learnt.files, *self.others})

    def concept(self, token: str) -> str:
        """The concept that has learnt it; empty for one of the others."""
        return "" if token in self.others else self._learnt.files[token].parent.name

    def word(self, token: str) -> Word:
        """Raises ParamsError for one that there is not, with those that there are, and for a file that cannot be read."""
        if token in self.others:
            return self.others[token]
        if token not in self._learnt.files:
            known = self.tokens()
            near = get_close_matches(token, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            more = " …" if len(known) > NAMED else ""
            there = f"There are: {', '.join(known[:NAMED])}{more}." if known else "None is learnt yet; `ti-pipeline train` learns them."
            raise ParamsError(f"{token}: no concept of {self.workspace.root} has learnt such a word. {hint}{there}")
        concept = self.concept(token)
        try:
            return load_own(self.workspace, concept, token, None)
        except ConceptError as error:
            raise ParamsError(str(error)) from None

    def manifest(self, token: str) -> Manifest | None:
        """Of the concept whose word it is; None where that has no pictures that can be used."""
        try:
            return read_manifest(self.workspace, concept) if (concept := self.concept(token)) else None
        except ConceptError:
            return None


@dataclass(frozen=True)
class Asked:
    """A prompt as a brief of the first concept that it names, so that it gets the seeds that the brief of this text would get.

    `concept` is empty where it names none. `tokens` are the learnt words in it, in lower case.
    """

    concept: str
    tokens: Sequence[str]
    order: Order


def understand(text: str, known: Known, negative: str = "") -> Asked:
    """Raises ParamsError for a text that no picture is drawn of, and for a word that nobody has learnt, there or in `negative`."""
    try:
        prompt = one_line(text)
        if PLACE in prompt:
            raise ValueError(f"{PLACE} is a brief's; write a learnt word as it is: {next(iter(known.tokens()), '<my-thing>')}")
        check_places(prompt)
        if len(prompt) > LONGEST:
            raise ValueError(f"has {len(prompt):,} characters; write at most {LONGEST:,}")
    except ValueError as error:
        raise ParamsError(f"the prompt {cut(text)!r}: {error}.") from None
    tokens = words_in([prompt])
    words = {token: known.word(token) for token in dict.fromkeys([*tokens, *words_in([negative])])}
    scoring = WORD.sub(lambda match: words[match.group().lower()].class_words, prompt)
    own = tokens[0] if tokens else ""
    brief = WORD.sub(lambda match: PLACE if match.group().lower() == own else match.group(), prompt)
    concept = known.concept(own) if own else ""
    return Asked(concept, tokens, Order([Brief(0, brief, prompt, scoring, tuple(tokens))], words, ""))


def check_length(asked: Asked, reader: Reader, negative: str) -> None:
    """Raise ParamsError for a prompt of which the generator would not read the end, or the word."""
    lengths = {token: len(word) for token, word in asked.order.words.items()}
    (brief,) = asked.order.briefs
    try:
        check_prompt(reader, asked.concept, brief.prompt, lengths)
        check_prompt(reader, asked.concept, negative, lengths, "generate.negative_prompt")
    except ConceptError as error:
        raise ParamsError(error.reason) from None
