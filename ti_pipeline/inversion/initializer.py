"""Where a learnt word starts from: the vectors of coarse class words, given or chosen by CLIP."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image

from ti_pipeline.concepts.templates import OBJECT, STYLE
from ti_pipeline.concepts.texts import class_words
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.generator import Encoder, Generator
from ti_pipeline.generators.placeholder import around, inner_ids, word_ids
from ti_pipeline.inversion.streams import Streams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUDGE = 0.01  # of the vocabulary's standard deviation; equal vectors would get equal gradients' worth of the same word
_WORD = re.compile(r"[a-z]{3,}")
RowOfEach = Callable[[Encoder, str], torch.Tensor]
"""A row for each of several words, as one text encoder has it: float32 [words, d] on the CPU."""


class Vocabulary(Protocol):
    """A tokenizer and the vectors [V, d] of its pieces."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def table(self) -> torch.Tensor: ...


def words_in_table(encoder: Vocabulary, words: str) -> torch.Tensor:
    """What the vocabulary has for each word, float32 [words, d] on the CPU: the mean of its pieces, if the tokenizer cuts it."""
    table = encoder.table
    ids = [word_ids(encoder.tokenizer, word) for word in words.split()]
    return torch.stack([table[torch.tensor(pieces, device=table.device)].detach().float().mean(dim=0) for pieces in ids if pieces]).cpu()


def rows_of(rows: Mapping[str, torch.Tensor], generator: Generator) -> RowOfEach:
    """A word's own rows in the place of those of its class words."""
    return lambda encoder, _: next(rows[name] for name, each in generator.learning.items() if each is encoder)


@torch.no_grad()
def words_in_context(encoder: Encoder, before: str, words: str) -> torch.Tensor:
    """What the encoder says at the place of each word behind `before`, float32 [words, d] on the CPU; pieces as in the table."""
    each, said = words.split(), encoder.states(encoder.tokenise([f"{before} {words}"], {}))[0].float().cpu()
    first, frame = len(around(encoder.tokenizer)[0]), replace(encoder.frame, after="")
    so_far = [" ".join([before, *each[:count]]) for count in range(len(each) + 1)]
    ends = [first + len(inner_ids(encoder.tokenizer, 0, text, {}, frame)) for text in so_far]
    return torch.stack([said[start:end].mean(dim=0) for start, end in pairwise(ends) if end > start])


def initial_rows(
    generator: Generator, words: str, count: int, streams: Streams, row_of_each: RowOfEach = words_in_table
) -> dict[str, torch.Tensor]:
    """Start rows for each text encoder that learns, float32 [count, d] on the CPU, from one or several class words.

    Fewer words than rows: the words are repeated in turn, the repeats with a little seeded noise. More: the last row is the mean of
    the words that are left over.
    """
    try:
        words = class_words(words)
    except ValueError as error:
        raise ConceptError(streams.concept, f"the initializer {error}. Set `initializer` in concept.yaml.") from None
    rows = {}
    for place, (name, encoder) in enumerate(generator.learning.items()):
        each = row_of_each(encoder, words)
        if len(each) >= count:
            rows[name] = torch.cat([each[: count - 1], each[count - 1 :].mean(dim=0, keepdim=True)])
            continue
        start = each[torch.arange(count) % len(each)]
        noise = streams.normal("initializer", place, tuple(start.shape)) * (NUDGE * encoder.table.detach().float().std().cpu())
        noise[: len(each)] = 0
        rows[name] = start + noise
    return rows


class WordChooser:
    """Chooses the word of the vocabulary that CLIP finds nearest to a set of pictures (cosine to their mean).

    `images` and `texts` give L2-normalised embeddings [n, d]; the vocabulary is embedded once, at the first choice.
    """

    def __init__(self, generator: Generator, images: Callable[[list[Image.Image]], np.ndarray], texts: Callable[[list[str]], np.ndarray]):
        self._images, self._texts = images, texts
        self._words = vocabulary_words(generator)
        self._embedded: np.ndarray | None = None

    def __call__(self, pictures: Sequence[Image.Image]) -> str:
        if self._embedded is None:
            self._embedded = self._texts([f"a photo of a {word}" for word in self._words])
        centre = self._images(list(pictures)).mean(axis=0)
        return self._words[int(np.argmax(self._embedded @ centre))]


def vocabulary_words(generator: Generator) -> list[str]:
    """Whole words of three letters or more, sorted; the templates' own words describe no thing and are left out."""
    plain = {word for template in (*OBJECT, *STYLE) for word in _WORD.findall(template.lower())}
    tokenizer = next(iter(generator.learning.values())).tokenizer
    whole = [word for word in map(_whole_word, tokenizer.get_vocab()) if word]
    if not whole:  # a vocabulary that marks the pieces which go on, and not those that end
        whole = [*tokenizer.get_vocab()]
    return sorted({word for word in whole if _WORD.fullmatch(word) and word not in plain})


def _whole_word(piece: str) -> str:
    """The word that a piece is by itself, told by the mark at its end (CLIP) or before it (SentencePiece, byte-level BPE)."""
    if piece.endswith("</w>"):
        return piece.removesuffix("</w>")
    return piece[1:] if piece.startswith(("▁", "Ġ")) else ""
