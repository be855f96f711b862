"""Placeholder words in prompts: where a token stands, which ids it takes, and whether a generator reads all of it.

A word of n rows takes the ids V + k … V + k + n - 1 behind the V rows of a vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from ti_pipeline.concepts.texts import cut
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.modelspec import models_of
from ti_pipeline.generators.reader import Frame, Reader, TextReader
from ti_pipeline.words.word import Word

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.generators.generator import Condition, Generator, Rows


def encode(generator: Generator, prompts: Sequence[str], words: Mapping[str, Word], *, negative: bool = False) -> Condition:
    """What the denoiser hears of prompts that may hold words, by their tokens; `negative` for those to steer away from.

    A text encoder for which a word has no rows reads its class words. A word that tells each cross-attention layer its own is read once
    for each layer, in the company of what others tell all layers.
    """
    ids = {}
    for name, encoder in generator.encoders.items():
        lengths = {token: len(word.rows[name]) for token, word in words.items() if name in word.rows}
        spelt = {token: word.class_words for token, word in words.items() if name not in word.rows}
        ids[name] = encoder.tokenise([spell(prompt, spelt) for prompt in prompts], lengths, negative=negative)
    if not any(word.layers for word in words.values()):
        return generator.condition(ids, _rows(generator, [word.rows for word in words.values()]))
    layers = [[_of_layer(word, i) for word in words.values()] for i in range(generator.layers)]
    return generator.layered([generator.condition(ids, _rows(generator, each)) for each in layers])


def spell(prompt: str, texts: Mapping[str, str]) -> str:
    """The prompt with a text in the place of each token."""
    if not (pattern := _pattern(texts)):
        return prompt
    lower = {token.lower(): text for token, text in texts.items()}
    return pattern.sub(lambda found: lower[found[0].lower()], prompt)


def _rows(generator: Generator, each: Sequence[Rows]) -> Rows | None:
    """Those of several words, behind each other, for each text encoder that has some."""
    having = {name: [rows[name] for rows in each if name in rows] for name in generator.encoders}
    return {name: torch.cat(rows) for name, rows in having.items() if rows} or None


def _of_layer(word: Word, layer: int) -> Rows:
    return {name: rows[layer] for name, rows in word.layers.items()} or word.rows


def check_prompt(reader: Reader, concept: str, prompt: str, lengths: Mapping[str, int], named: str = "") -> None:
    """Raise ConceptError when a prompt is longer than the generator reads: its end, or the token, would be lost in silence.

    `named` is what the reason calls it. A token of more vectors than any prompt has room for is refused before there is anything
    as long as that.
    """
    shortest = min(encoder.frame.context for encoder in reader.learning.values())
    if (vectors := max(lengths.values(), default=0)) > shortest - 2:
        raise ConceptError(
            concept,
            f"{vectors:,} vectors do not fit: {reader.name} reads {shortest} tokens of a prompt, start, end and the other "
            "words among them. Set fewer `vectors` in concept.yaml, or train.vectors.",
        )
    if (encoder := cutting(reader, prompt, lengths)) is None:
        return
    needed, context = prompt_length(encoder, prompt, lengths), encoder.frame.context
    place = max((m.end() for m in pattern.finditer(prompt)), default=0) if (pattern := _pattern(lengths)) else 0
    kept = prompt_length(encoder, prompt[:place], lengths) <= context
    lost = "its end" if place and kept else "the learnt word" if place else "its end"
    raise ConceptError(
        concept,
        f"{named or f'the prompt {cut(prompt)!r}'} takes {needed} tokens and {reader.name} reads {context}, "
        f"so {lost} would be cut off. Shorten it, or learn fewer vectors (train.vectors).",
    )


def cutting(reader: Reader, prompt: str, lengths: Mapping[str, int]) -> TextReader | None:
    """The first text encoder that learns words and does not read a prompt to its end. What others cut, the stock pipeline cuts too."""
    return next((each for each in reader.learning.values() if prompt_length(each, prompt, lengths) > each.frame.context), None)


def prompt_length(encoder: TextReader, prompt: str, lengths: Mapping[str, int]) -> int:
    """Tokens of a prompt for a text encoder, with all that stands around it."""
    return len(inner_ids(encoder.tokenizer, 0, prompt, lengths, encoder.frame)) + sum(map(len, around(encoder.tokenizer)))


@lru_cache(maxsize=16)
def around(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids of the tokens that it puts before and behind a text."""
    whole, inner = (tokenizer("a", add_special_tokens=special).input_ids for special in (True, False))
    first = next(place for place in range(len(whole)) if whole[place : place + len(inner)] == inner)
    return tuple(whole[:first]), tuple(whole[first + len(inner) :])


def word_ids(tokenizer: PreTrainedTokenizerBase, words: str) -> list[int]:
    """Ids of words as they stand within a text: to many vocabularies the space before a word belongs to it."""
    return tokenizer(f" {words}", add_special_tokens=False).input_ids


def check_token(reader: Reader, concept: str, token: str) -> None:
    """Raise ConceptError for a token that is a word of the vocabulary already, or none that stands alone in a prompt."""
    advice = f"Set another `token` in concept.yaml, such as <{concept}>."
    if not token.strip() or re.search(r"\s", token):
        raise ConceptError(concept, f"the token {token!r} is empty or has spaces. {advice}")
    for encoder in reader.learning.values():
        vocabulary = encoder.tokenizer.get_vocab()
        if any(piece in vocabulary for piece in _whole_pieces(token.lower())):
            raise ConceptError(concept, f"the token {token!r} is a word that {reader.name} knows already. {advice}")


def check_widths(model: str, own: Mapping[str, int], concept: str, word: Word) -> None:
    """Raise ConceptError for a word that was learnt for a model with other text encoders than `model`, of which the vectors have `own`
    numbers."""
    learnt = {name: rows.shape[1] for name, rows in word.rows.items()}
    if not learnt.items() <= own.items():
        raise ConceptError(
            concept,
            f"the vectors of {word.token} have {numbers(learnt)} and {model} takes {numbers(own)}, so the word was learnt for "
            f"{models_of(learnt) or 'another model'}. Train it again, or set generator.model to that model.",
        )


def check_width(generator: Generator, concept: str, word: Word) -> None:
    """Raise ConceptError for a word that was learnt for a model with other text encoders or another number of layers."""
    check_widths(generator.name, {name: encoder.table.shape[1] for name, encoder in generator.encoders.items()}, concept, word)
    for rows in word.layers.values():
        if len(rows) != generator.layers:
            raise ConceptError(
                concept,
                f"{word.token} was learnt for {len(rows)} cross-attention layers and {generator.name} has {generator.layers}, so the "
                "word was learnt for another model. Train it again, or set generator.model to that model.",
            )


def numbers(widths: Mapping[str, int]) -> str:
    """`32 numbers` of a single text encoder, `768 (clip_l) and 1280 (clip_g) numbers` of several."""
    if len(widths) == 1:
        return f"{next(iter(widths.values()))} numbers"
    return f"{' and '.join(f'{width} ({name})' for name, width in widths.items())} numbers"


def inner_ids(
    tokenizer: PreTrainedTokenizerBase, first: int, prompt: str, lengths: Mapping[str, int], frame: Frame | None = None
) -> list[int]:
    """Ids of a prompt in its frame, uncut, without the tokenizer's own start and end; each token stands for all of its vectors, of which
    the ids begin at `first`.

    The space before a token belongs to its vectors, as to many vocabularies the space before a word belongs to that.
    """
    starts = {}
    for token, count in lengths.items():
        starts[token.lower()] = range(first, first + count)
        first += count
    pattern = _pattern(lengths)
    if frame and frame.lower:
        prompt = prompt.lower().strip()
    pieces = pattern.split(prompt) if pattern else [prompt]  # by turns a text, which may be empty, and a token
    if frame:
        pieces[0] = frame.before + pieces[0]
        pieces[-1] += frame.after
    ids: list[int] = []
    for place, piece in enumerate(pieces):
        if place % 2:
            ids += starts[piece.lower()]
        else:
            ids += _text_ids(tokenizer, piece if place + 1 == len(pieces) else piece.removesuffix(" "), behind=place > 0)
    return ids


def _text_ids(tokenizer: PreTrainedTokenizerBase, text: str, behind: bool) -> list[int]:
    """Ids of a text; one that stands directly `behind` a token goes on there, where a T5's tokenizer would begin a word."""

    def plain(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids

    ids = plain(text)
    if behind and text[:1].strip() and str(tokenizer.convert_ids_to_tokens(ids[0])).startswith("▁"):
        word, both = plain("x"), plain(f"x{text}")
        if both[: len(word)] == word:
            return both[len(word) :]
    return ids


def _whole_pieces(word: str) -> tuple[str, ...]:
    """How vocabularies write a word that is one piece: with its end marked, or the space before it."""
    return word, f"{word}</w>", f"▁{word}", f"Ġ{word}"


def _pattern(tokens: Collection[str]) -> re.Pattern | None:
    """Finds tokens as whole words, the longest first, in any case: CLIP's vocabulary has no capitals."""
    if not tokens:
        return None
    whole = (_whole_word(token) for token in sorted(tokens, key=len, reverse=True))
    return re.compile(f"({'|'.join(whole)})", re.IGNORECASE)


def _whole_word(token: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", token) else ""
    after = r"(?!\w)" if re.search(r"\w$", token) else ""
    return before + re.escape(token) + after
