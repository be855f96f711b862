"""Losses and gradients of several concepts in one pass, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.learner import Draws
from ti_pipeline.words.word import ONLY

HALF_SCALE = 2.0**12  # gradients of float16 activations would vanish below 6e-8


def losses_and_gradient(generator: Generator, rows: torch.Tensor, draws: Sequence[Draws], parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each concept's mean loss over its own samples [concepts] and its gradient [concepts, n, d], in `parts` passes.

    `rows` float32 [concepts, n, d] are the only thing that a gradient is computed for; a concept of fewer than n vectors has
    zeros behind them, which no prompt asks for and which stay zero.
    """
    scale = HALF_SCALE if generator.dtype == torch.float16 else 1.0
    losses = torch.zeros(len(rows), device=rows.device)
    gradient = torch.zeros_like(rows)
    for part in range(parts):
        leaf = rows.detach().requires_grad_()
        each = _losses(generator, leaf, draws, part, parts) / parts
        gradient += torch.autograd.grad(each.sum() * scale, leaf)[0] / scale
        losses += each.detach()
    return losses, gradient


@torch.no_grad()
def losses_only(generator: Generator, rows: torch.Tensor, draws: Sequence[Draws]) -> torch.Tensor:
    """Each concept's mean loss [concepts] over the samples of `draws`, which need no gradient."""
    return _losses(generator, rows, draws, 0, 1)


def _losses(generator: Generator, rows: torch.Tensor, draws: Sequence[Draws], part: int, parts: int) -> torch.Tensor:
    ids, t, z0, noise = (_gather(draws, name, part, parts, generator.device) for name in ("ids", "t", "z0", "noise"))
    concepts, vectors, _ = rows.shape
    condition = generator.condition({ONLY: _apart(ids, concepts, vectors, len(generator.encoders[ONLY].table))}, {ONLY: rows.flatten(0, 1)})
    return generator.losses(z0, noise, t, condition).view(concepts, -1).mean(dim=1)


def _gather(draws: Sequence[Draws], name: str, part: int, parts: int, device: torch.device) -> torch.Tensor:
    """One part of everybody's draws in one tensor on the device; the copy does not wait where the memory is pinned."""
    whole = torch.cat([getattr(draw, name).chunk(parts)[part] for draw in draws])
    return (whole.pin_memory() if device.type == "cuda" else whole).to(device, non_blocking=True)


def _apart(ids: torch.Tensor, concepts: int, vectors: int, words: int) -> torch.Tensor:
    """Each concept's placeholder ids start behind the table; in a pack the rows of concept c start at c * n."""
    shift = torch.arange(concepts, device=ids.device).repeat_interleave(len(ids) // concepts) * vectors
    return torch.where(ids >= words, ids + shift[:, None], ids)
