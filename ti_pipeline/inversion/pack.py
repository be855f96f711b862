"""Losses and gradients of several concepts in one pass, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.inversion.draws import Draws, together
from ti_pipeline.inversion.leaves import Leaves, alike
from ti_pipeline.inversion.setups.setup import Setup

HALF_SCALE = 2.0**12  # gradients of float16 activations would vanish below 6e-8
Tensors = Mapping[str, torch.Tensor]


def losses_and_gradient(generator: Generator, leaves: Leaves, draws: Sequence[Draws], parts: int) -> tuple[torch.Tensor, Tensors]:
    """Each concept's mean loss over its own samples [concepts], without its setup's penalty, and its gradient {leaf: [concepts, …]}.

    The samples are gone through in `parts` passes. The leaves are the only thing that a gradient is computed for.
    """
    scale = HALF_SCALE if generator.dtype == torch.float16 else 1.0
    losses = torch.zeros(len(leaves), device=generator.device)
    gradient = {name: torch.zeros_like(leaf) for name, leaf in leaves.values.items()}
    for part in range(parts):
        values = {name: leaf.detach().requires_grad_() for name, leaf in leaves.values.items()}
        some = [draw.part(part, parts) for draw in draws]
        each = _losses(generator, leaves, values, range(len(leaves)), some) / parts
        whole = each.sum() + sum(penalty.sum() for penalty in _penalties(generator, leaves, values, some)) / parts
        found = torch.autograd.grad(whole * scale, list(values.values()), allow_unused=True, materialize_grads=True)
        for name, of_leaf in zip(values, found, strict=True):
            gradient[name] += of_leaf / scale
        losses += each.detach()
    return losses, gradient


@torch.no_grad()
def losses_only(generator: Generator, leaves: Leaves, places: Sequence[int], draws: Sequence[Draws]) -> torch.Tensor:
    """The mean loss of each concept at `places` over the samples of `draws`, [places]; they need no gradient."""
    return _losses(generator, leaves, leaves.values, places, draws)


def _losses(generator: Generator, leaves: Leaves, values: Tensors, places: Sequence[int], draws: Sequence[Draws]) -> torch.Tensor:
    """Conditions of those that are conditioned alike together, then a pass of the denoiser for all samples of one size."""
    groups = alike([leaves.setups[place].condition for place in places])
    order = [i for group in groups for i in group]
    drawn = together([draws[i] for i in order], generator.device)
    samples, conditions, done = len(drawn.t) // len(order), [], 0
    for group in groups:
        setup, there = leaves.setups[places[group[0]]], leaves.group([places[i] for i in group], values)
        ids = drawn.rows(range(done * samples, (done + len(group)) * samples)).ids
        conditions.append(setup.condition(generator, there.apart(generator, ids), there))
        done += len(group)
    heard = Condition.cat(conditions) if len(groups) > 1 else conditions[0]
    losses = drawn.by_extent(lambda rows, some: generator.losses(some.z0, some.noise, some.t, heard[rows], some.weight))
    losses = losses.view(len(places), -1).mean(dim=1)
    return losses[torch.tensor(order, device=losses.device).argsort()] if len(groups) > 1 else losses


def _penalties(generator: Generator, leaves: Leaves, values: Tensors, draws: Sequence[Draws]) -> Iterator[torch.Tensor]:
    """What setups add to the losses of their concepts, [concepts] of those that have the same settings and are conditioned alike."""
    having: dict[tuple[Setup, Callable], list[int]] = {}
    for place, setup in enumerate(leaves.setups):
        for part in setup.penalised:
            having.setdefault((part, setup.condition), []).append(place)
    for (part, _), places in having.items():
        group, drawn = leaves.group(places, values), together([draws[place] for place in places], generator.device)
        penalty = part.penalty(generator, group, replace(drawn, ids=group.apart(generator, drawn.ids)))
        if penalty is not None:
            yield penalty
