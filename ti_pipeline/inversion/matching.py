"""The word that a CLIP finds most like a concept's pictures, and what of it another text encoder can use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image

from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.placeholder import around, inner_ids
from ti_pipeline.inversion.initializer import words_in_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.inversion.setups.setup import Subject

SAMPLES = 16  # prompts in a step
RIDGE = 1.0  # of the mean square of the table's columns; for words that it was not fitted to, the best of 0.001 to 10 in the miniature
SAME = 0.01  # relative distance of two tables that are one in different precision
SPECIAL = 4  # pieces that tokenizers of one vocabulary may name differently: start and end, each in both


class Sight(Protocol):
    """A CLIP, as far as a word is matched to pictures with it."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def context(self) -> int:
        """Tokens of a text that it reads, start and end included."""

    @property
    def pieces(self) -> Mapping[str, int]:
        """Its vocabulary: the id of each piece."""

    @property
    def table(self) -> torch.Tensor | None:
        """Vectors of these pieces [V, d]; None where it has none of its own."""

    def images(self, pictures: list[Image.Image]) -> np.ndarray:
        """L2-normalised embeddings, float32 [n, e]."""

    def read(self, ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """L2-normalised embeddings [b, e] of ids [b, context]; `rows` [r, d] are the vectors behind the table, and gradients flow to
        them."""


def match(subject: Subject, steps: int, rate: float) -> torch.Tensor:
    """argmax_v E cos(picture, prompt with v): rows of the word for the text encoder of the subject's Sight, float32 [n, d] on the CPU.

    Raises ConceptError when the generator has another vocabulary.
    """
    sight, table = _sight(subject)
    tokenizer, vectors = next(iter(subject.generator.learning.values())).tokenizer, subject.train.vectors
    word = _start(subject, table).to(table.device).requires_grad_()
    manifest, lengths = subject.manifest, {subject.manifest.token: vectors}
    pictures = torch.from_numpy(sight.images([manifest.open(picture) for picture in manifest.pictures])).to(table.device)
    ids = [[_ids(sight, tokenizer, len(table), prompt, lengths) for prompt in said] for said in subject.prompts]
    optimizer = torch.optim.Adam([word], lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    for step in range(steps):
        places = subject.streams.rounds("match picture", step * SAMPLES, SAMPLES, len(ids))
        choice = torch.rand(SAMPLES, generator=subject.streams.at("match prompt", step)).tolist()
        prompts = torch.tensor([ids[place][int(u * len(ids[place]))] for place, u in zip(places, choice, strict=True)])
        loss = -(sight.read(prompts.to(table.device), word) * pictures[places]).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return word.detach().cpu()


def carried(subject: Subject, rows: torch.Tensor, start: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`rows` for the Sight's text encoder as rows for each of the generator's.

    Where the table is another, those of `start`, moved as the rows have moved from theirs, and as long as they were: a map of whole rows
    loses most of a word, since the tables have little in common.
    """
    _, table = _sight(subject)
    begun, found = _start(subject, table), {}
    for name, encoder in subject.generator.learning.items():
        if _is_same(table, encoder.table):
            found[name] = rows
            continue
        moved = start[name] + (rows - begun) @ _map(table, encoder.table)
        found[name] = moved * (start[name].norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True))
    return found


def _start(subject: Subject, table: torch.Tensor) -> torch.Tensor:
    """Where a word starts in the Sight's table, float32 [n, d] on the CPU."""
    start = subject.rows(subject.train.vectors, lambda encoder, words: words_in_table(_Seen(encoder.tokenizer, table), words))
    return next(iter(start.values()))


def _sight(subject: Subject) -> tuple[Sight, torch.Tensor]:
    """The Sight and its table, when each text encoder of the generator has its vocabulary."""
    assert subject.sight is not None, "a setup that LOOKS needs a Sight"
    sight, generator = subject.sight(), subject.generator
    table = sight.table
    if table is None:
        reason = f"clip_start: the ranker {sight.name} has no table in which a word could be learnt. Set ranker.model to a CLIP."
        raise ConceptError(subject.manifest.slug, reason)
    for name, encoder in generator.learning.items():
        if len(encoder.tokenizer.get_vocab().items() ^ sight.pieces.items()) > SPECIAL:
            reason = f"clip_start: the ranker {sight.name} and the text encoder {name} of {generator.name} have other vocabularies, so no "
            raise ConceptError(subject.manifest.slug, f"{reason}word of the one can be one of the other. Choose another train.setup.")
    return sight, table


def _is_same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.detach().float().cpu(), other.detach().float().cpu()
    return bool((one - other).norm() < SAME * other.norm())


@lru_cache(maxsize=4)
def _map(table: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The linear map [d, d'] between two tables of one vocabulary that has the least squares, held small (ridge regression)."""
    x, y = (each.detach().double().cpu() for each in (table, other))
    square = x.T @ x
    return torch.linalg.solve(square + RIDGE * square.diagonal().mean() * torch.eye(len(square)), x.T @ y).float()


def _ids(sight: Sight, tokenizer: PreTrainedTokenizerBase, words: int, prompt: str, lengths: Mapping[str, int]) -> list[int]:
    """Of a prompt, as the Sight reads it; what stands behind the end means nothing to it."""
    before, after = around(tokenizer)
    inner = inner_ids(tokenizer, words, prompt, lengths)[: sight.context - len(before) - len(after)]
    return [*before, *inner, *after, *[after[-1]] * (sight.context - len(before) - len(inner) - len(after))]


@dataclass(frozen=True)
class _Seen:
    """The Sight's text encoder, as far as its vectors are looked up."""

    tokenizer: PreTrainedTokenizerBase
    table: torch.Tensor
