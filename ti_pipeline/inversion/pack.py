"""Losses and gradients of several concepts in one pass, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ti_pipeline.generators.load import Generator
from ti_pipeline.generators.placeholder import encode_ids
from ti_pipeline.inversion.learner import Draws
from ti_pipeline.inversion.objective import Diffusion, concept_losses

HALF_SCALE = 2.0**12  # gradients of float16 activations would vanish below 6e-8


def losses_and_gradient(generator: Generator, diffusion: Diffusion, rows: torch.Tensor, draws: Sequence[Draws],
                        parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each concept's mean loss over its own samples [concepts] and its gradient [concepts, n, d], in `parts` passes.

    `rows` float32 [concepts, n, d] are the only thing that a gradient is computed for.
    """
    concepts, vectors, _ = rows.shape
    scale = HALF_SCALE if generator.dtype == torch.float16 else 1.0
    losses = torch.zeros(concepts, device=rows.device)
    gradient = torch.zeros_like(rows)
    for part in range(parts):
        ids, t, z0, noise = (
            torch.cat([getattr(draw, name).chunk(parts)[part].to(generator.device) for draw in draws])
            for name in ("ids", "t", "z0", "noise")
        )
        leaf = rows.detach().requires_grad_()
        hidden = encode_ids(generator, _apart(ids, concepts, vectors, len(generator.vocabulary)), leaf.flatten(0, 1))
        predicted = generator.unet(diffusion.noisy(z0, noise, t).to(generator.dtype), t, hidden).sample
        each = concept_losses(predicted, diffusion.target(z0, noise, t), concepts) / parts
        gradient += torch.autograd.grad(each.sum() * scale, leaf)[0] / scale
        losses += each.detach()
    return losses, gradient


def _apart(ids: torch.Tensor, concepts: int, vectors: int, words: int) -> torch.Tensor:
    """Each concept's placeholder ids start behind the table; in a pack the rows of concept c start at c * n."""
    shift = torch.arange(concepts, device=ids.device).repeat_interleave(len(ids) // concepts) * vectors
    return torch.where(ids >= words, ids + shift[:, None], ids)
