"""Placeholder words in prompts: where a token stands, which ids it takes, and whether a generator reads all of it.

A word of n rows takes the ids V + k … V + k + n - 1 behind the V rows of a vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from ti_pipeline.concepts.texts import cut
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.modelspec import models_of
from ti_pipeline.generators.reader import Reader
from ti_pipeline.words.word import Word

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.generators.generator import Condition, Generator, Rows


def encode(generator: Generator, prompts: Sequence[str], words: Mapping[str, Word]) -> Condition:
    """What the denoiser hears of prompts that may hold words, by their tokens.

    A word that tells each cross-attention layer its own is read once for each layer, in the company of what others tell all layers.
    """
    ids = generator.tokenise(prompts, {token: len(word) for token, word in words.items()})
    if not any(word.layers for word in words.values()):
        return generator.condition(ids, _rows(generator, [word.rows for word in words.values()]))
    layers = [[_of_layer(word, i) for word in words.values()] for i in range(generator.layers)]
    return generator.layered([generator.condition(ids, _rows(generator, each)) for each in layers])


def _rows(generator: Generator, each: Sequence[Rows]) -> Rows | None:
    """Those of several words, behind each other."""
    return {name: torch.cat([rows[name] for rows in each]) for name in generator.encoders} if each else None


def _of_layer(word: Word, layer: int) -> Rows:
    return {name: rows[layer] for name, rows in word.layers.items()} or word.rows


def check_prompt(reader: Reader, concept: str, prompt: str, lengths: Mapping[str, int], named: str = "") -> None:
    """Raise ConceptError when a prompt is longer than the generator reads: its end, or the token, would be lost in silence.

    `named` is what the reason calls it. A token of more vectors than any prompt has room for is refused before there is anything
    as long as that.
    """
    if (vectors := max(lengths.values(), default=0)) > reader.context - 2:
        raise ConceptError(
            concept,
            f"{vectors:,} vectors do not fit: {reader.name} reads {reader.context} tokens of a prompt, start, end and the other "
            "words among them. Set fewer `vectors` in concept.yaml, or train.vectors.",
        )
    needed = prompt_length(reader, prompt, lengths)
    if needed <= reader.context:
        return
    place = max((m.end() for m in pattern.finditer(prompt)), default=0) if (pattern := _pattern(lengths)) else 0
    kept = prompt_length(reader, prompt[:place], lengths) <= reader.context
    lost = "its end" if place and kept else "the learnt word" if place else "its end"
    raise ConceptError(
        concept,
        f"{named or f'the prompt {cut(prompt)!r}'} takes {needed} tokens and {reader.name} reads {reader.context}, "
        f"so {lost} would be cut off. Shorten it, or learn fewer vectors (train.vectors).",
    )


def prompt_length(reader: Reader, prompt: str, lengths: Mapping[str, int]) -> int:
    """Tokens of a prompt, start and end included, for the text encoder that needs most."""
    tokenizers = [encoder.tokenizer for encoder in reader.encoders.values()]
    return max(len(inner_ids(each, 0, prompt, lengths)) + sum(map(len, around(each))) for each in tokenizers)


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids of the tokens that stand before and after a prompt."""
    before = (tokenizer.bos_token_id, tokenizer.cls_token_id)
    after = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    first, last = ([next(each for each in ids if each is not None)] if any(i is not None for i in ids) else [] for ids in (before, after))
    return first, last


def check_token(reader: Reader, concept: str, token: str) -> None:
    """Raise ConceptError for a token that is a word of the vocabulary already, or none that stands alone in a prompt."""
    advice = f"Set another `token` in concept.yaml, such as <{concept}>."
    if not token.strip() or re.search(r"\s", token):
        raise ConceptError(concept, f"the token {token!r} is empty or has spaces. {advice}")
    for encoder in reader.encoders.values():
        vocabulary = encoder.tokenizer.get_vocab()
        if token.lower() in vocabulary or f"{token.lower()}</w>" in vocabulary:
            raise ConceptError(concept, f"the token {token!r} is a word that {reader.name} knows already. {advice}")


def check_width(generator: Generator, concept: str, word: Word) -> None:
    """Raise ConceptError for a word that was learnt for a model with other text encoders or another number of layers."""
    own = {name: encoder.table.shape[1] for name, encoder in generator.encoders.items()}
    learnt = {name: rows.shape[1] for name, rows in word.rows.items()}
    if own != learnt:
        raise ConceptError(
            concept,
            f"the vectors of {word.token} have {_numbers(learnt)} and {generator.name} takes {_numbers(own)}, so the word was learnt "
            f"for {models_of(learnt) or 'another model'}. Train it again, or set generator.model to that model.",
        )
    for rows in word.layers.values():
        if len(rows) != generator.layers:
            raise ConceptError(
                concept,
                f"{word.token} was learnt for {len(rows)} cross-attention layers and {generator.name} has {generator.layers}, so the "
                "word was learnt for another model. Train it again, or set generator.model to that model.",
            )


def _numbers(widths: Mapping[str, int]) -> str:
    """`32 numbers` of a single text encoder, `768 (clip_l) and 1280 (clip_g) numbers` of several."""
    if len(widths) == 1:
        return f"{next(iter(widths.values()))} numbers"
    return f"{' and '.join(f'{width} ({name})' for name, width in widths.items())} numbers"


def inner_ids(tokenizer: PreTrainedTokenizerBase, first: int, prompt: str, lengths: Mapping[str, int]) -> list[int]:
    """Ids of a prompt without start and end, uncut; each token stands for all of its vectors, of which the ids begin at `first`."""
    starts = {}
    for token, count in lengths.items():
        starts[token.lower()] = range(first, first + count)
        first += count
    pattern = _pattern(lengths)
    ids: list[int] = []
    for piece in pattern.split(prompt) if pattern else [prompt]:
        own = starts.get(piece.lower())
        ids += own if own else tokenizer(piece, add_special_tokens=False, truncation=False, verbose=False).input_ids
    return ids


def _pattern(tokens: Mapping[str, int]) -> re.Pattern | None:
    """Finds tokens as whole words, the longest first, in any case: CLIP's vocabulary has no capitals."""
    if not tokens:
        return None
    whole = (_whole_word(token) for token in sorted(tokens, key=len, reverse=True))
    return re.compile(f"({'|'.join(whole)})", re.IGNORECASE)


def _whole_word(token: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", token) else ""
    after = r"(?!\w)" if re.search(r"\w$", token) else ""
    return before + re.escape(token) + after
