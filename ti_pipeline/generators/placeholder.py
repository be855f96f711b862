"""Placeholder words: learnt vectors in a prompt, without touching the tokenizer or the vocabulary table.

A word of n vectors takes the ids V + k … V + k + n - 1 behind the table's V rows. Ids behind the table never reach it:
they are looked up as id 0 and replaced by their vectors in a forward hook, which is also where the gradient comes out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from ti_pipeline.concepts.texts import cut
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.reader import Reader
from ti_pipeline.words.word import ONLY, Word

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

Words = Mapping[str, torch.Tensor]


def encode_prompts(generator: Generator, prompts: Sequence[str], words: Words) -> torch.Tensor:
    """Hidden states [batch, context, d] of prompts that may hold the tokens of `words` (token to vectors [n, d])."""
    ids = tokenize(generator, prompts, {token: len(vectors) for token, vectors in words.items()})
    return encode_ids(generator, ids, torch.cat(list(words.values())) if words else None)


def tokenize(generator: Generator, prompts: Sequence[str], lengths: Mapping[str, int]) -> torch.Tensor:
    """Ids [batch, context], cut and padded as the tokenizer does it; `lengths` are the vectors of each token, in order."""
    tokenizer, room = generator.tokenizer, generator.context - 2
    rows = []
    for prompt in prompts:
        inner = _inner_ids(tokenizer, len(generator.vocabulary), prompt, lengths)[:room]
        padding = [tokenizer.pad_token_id] * (room - len(inner))
        rows.append([tokenizer.bos_token_id, *inner, tokenizer.eos_token_id, *padding])
    return torch.tensor(rows)


def encode_ids(generator: Generator, ids: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    """Hidden states [batch, context, d]; `rows` [r, d] are the vectors behind the table, and gradients flow to them."""
    ids = ids.to(generator.device)
    outside = ids >= len(generator.vocabulary)
    mask = None
    if getattr(generator.text_encoder.config, "use_attention_mask", False):
        mask = _attention_mask(ids, generator.tokenizer.eos_token_id)
    with _put(generator, ids, rows):
        return generator.text_encoder(ids.masked_fill(outside, 0), attention_mask=mask).last_hidden_state


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
    """Tokens of a prompt, start and end included."""
    return len(_inner_ids(reader.tokenizer, 0, prompt, lengths)) + 2


def check_token(generator: Generator, concept: str, token: str) -> None:
    """Raise ConceptError for a token that is a word of the vocabulary already, or none that stands alone in a prompt."""
    vocabulary = generator.tokenizer.get_vocab()
    advice = f"Set another `token` in concept.yaml, such as <{concept}>."
    if not token.strip() or re.search(r"\s", token):
        raise ConceptError(concept, f"the token {token!r} is empty or has spaces. {advice}")
    if token.lower() in vocabulary or f"{token.lower()}</w>" in vocabulary:
        raise ConceptError(concept, f"the token {token!r} is a word that {generator.name} knows already. {advice}")


def check_width(generator: Generator, concept: str, word: Word) -> None:
    """Raise ConceptError for a word that was learnt for a model with another text encoder."""
    for encoder, rows in word.rows.items():
        if encoder != ONLY or rows.shape[1] != generator.vocabulary.shape[1]:
            raise ConceptError(
                concept,
                f"the vectors of {word.token} have {rows.shape[1]} numbers and {generator.name} takes {generator.vocabulary.shape[1]}, so "
                "the word was learnt for another model. Train it again, or set generator.model to that model.",
            )


def _inner_ids(tokenizer: CLIPTokenizer, first: int, prompt: str, lengths: Mapping[str, int]) -> list[int]:
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


def _attention_mask(ids: torch.Tensor, end: int) -> torch.Tensor:
    """Ones up to and with the first end token."""
    return ((ids == end).cumsum(dim=1) - (ids == end).int() == 0).long()


@contextmanager
def _put(generator: Generator, ids: torch.Tensor, rows: torch.Tensor | None) -> Iterator[None]:
    if rows is None:
        yield
        return
    words = len(generator.vocabulary)

    def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        learnt = F.embedding((ids - words).clamp(min=0), rows.to(generator.device)).to(output.dtype)
        return torch.where((ids >= words)[..., None], learnt, output)

    hook = generator.text_encoder.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
