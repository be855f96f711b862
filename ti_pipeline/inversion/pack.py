"""Losses and gradients of several concepts in one pass, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence

import torch

from ti_pipeline.generators.generator import Condition, Generator, Ids
from ti_pipeline.inversion.learner import Draws
from ti_pipeline.inversion.leaves import Leaves

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
        each = _losses(generator, leaves, values, range(len(leaves)), [draw.part(part, parts) for draw in draws]) / parts
        whole = each.sum() + sum(penalty.sum() for penalty in _penalties(generator, leaves, values)) / parts
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
    groups = _groups([type(leaves.setups[place]).condition for place in places])
    order = [i for group in groups for i in group]
    conditions = []
    for group in groups:
        there, setup = [places[i] for i in group], leaves.setups[places[group[0]]]
        ids = _apart(generator, [draws[i].ids for i in group], leaves.longest(there))
        conditions.append(setup.condition(generator, ids, leaves.group(there, values)))
    z0, noise, t = (_gather([getattr(draws[i], name) for i in order], generator.device) for name in ("z0", "noise", "t"))
    losses = generator.losses(z0, noise, t, Condition.cat(conditions) if len(groups) > 1 else conditions[0])
    losses = losses.view(len(places), -1).mean(dim=1)
    return losses[torch.tensor(order, device=losses.device).argsort()] if len(groups) > 1 else losses


def _penalties(generator: Generator, leaves: Leaves, values: Tensors) -> Iterator[torch.Tensor]:
    """What setups add to the losses of their concepts, [concepts of one setup] each."""
    for group in _groups(leaves.setups):
        penalty = leaves.setups[group[0]].penalty(generator, leaves.group(group, values))
        if penalty is not None:
            yield penalty


def _groups(each: Iterable[Hashable]) -> list[list[int]]:
    """The places of equal things together."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(each):
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def _gather(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Everybody's draws in one tensor on the device; the copy does not wait where the memory is pinned."""
    whole = torch.cat(list(parts))
    return (whole.pin_memory() if device.type == "cuda" else whole).to(device, non_blocking=True)


def _apart(generator: Generator, each: Sequence[Ids], rows: int) -> Ids:
    """Each concept's placeholder ids start behind the table; in a group of `rows` rows a concept those of concept c start at c * rows."""
    apart = {}
    for encoder, first in each[0].items():
        ids = _gather([ids[encoder] for ids in each], generator.device)
        shift = torch.arange(len(each), device=ids.device).repeat_interleave(len(first)) * rows
        apart[encoder] = torch.where(ids >= len(generator.encoders[encoder].table), ids + shift[:, None], ids)
    return apart
