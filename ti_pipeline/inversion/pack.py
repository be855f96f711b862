"""Losses and gradients of several concepts in one pass, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.inversion.learner import Draws
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
    """Conditions of those that are conditioned alike together, then one pass of the denoiser for all."""
    groups = alike([leaves.setups[place].condition for place in places])
    order = [i for group in groups for i in group]
    conditions = []
    for group in groups:
        setup, there = leaves.setups[places[group[0]]], leaves.group([places[i] for i in group], values)
        ids = _together([draws[i].ids for i in group], generator.device)
        conditions.append(setup.condition(generator, there.apart(generator, ids), there))
    z0, noise, t = (_gather([getattr(draws[i], name) for i in order], generator.device) for name in ("z0", "noise", "t"))
    losses = generator.losses(z0, noise, t, Condition.cat(conditions) if len(groups) > 1 else conditions[0])
    losses = losses.view(len(places), -1).mean(dim=1)
    return losses[torch.tensor(order, device=losses.device).argsort()] if len(groups) > 1 else losses


def _penalties(generator: Generator, leaves: Leaves, values: Tensors, draws: Sequence[Draws]) -> Iterator[torch.Tensor]:
    """What setups add to the losses of their concepts, [concepts] of those that have the same settings and are conditioned alike."""
    having: dict[tuple[Setup, Callable], list[int]] = {}
    for place, setup in enumerate(leaves.setups):
        for part in setup.penalised:
            having.setdefault((part, setup.condition), []).append(place)
    for (part, _), places in having.items():
        group, own = leaves.group(places, values), [draws[place] for place in places]
        ids = group.apart(generator, _together([each.ids for each in own], generator.device))
        t, z0, noise = (_gather([getattr(each, name) for each in own], generator.device) for name in ("t", "z0", "noise"))
        penalty = part.penalty(generator, group, Draws(ids, t, z0, noise, _together([each.beside for each in own], generator.device)))
        if penalty is not None:
            yield penalty


def _gather(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Everybody's draws in one tensor on the device; the copy does not wait where the memory is pinned."""
    whole = torch.cat(list(parts))
    return (whole.pin_memory() if device.type == "cuda" else whole).to(device, non_blocking=True)


def _together(each: Sequence[Tensors], device: torch.device) -> dict[str, torch.Tensor]:
    """Everybody's draws of each name that all of them have."""
    return {name: _gather([own[name] for own in each], device) for name in each[0] if all(name in own for own in each)}
