"""What is learnt, of one concept by itself and of many at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ti_pipeline.inversion.adamw import for_each
from ti_pipeline.inversion.setups.setup import Combination, Group, Learnable, Moments, Step

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Learning:
    """What one concept learns, and the moments of its leaves, on the CPU."""

    one: Learnable
    first: Tensors
    second: Tensors

    @classmethod
    def begun(cls, one: Learnable) -> Learning:
        return cls(one, *({name: torch.zeros_like(leaf) for name, leaf in one.leaves.items()} for _ in range(2)))

    def going_on(self, one: Learnable) -> Learning:
        """With other leaves from now on: moments stay with their numbers, those of new ones are zero."""

        def kept(name: str, leaf: torch.Tensor, moments: Tensors) -> torch.Tensor:
            new = torch.zeros(leaf.shape)
            if name in moments:
                both = tuple(slice(min(pair)) for pair in zip(leaf.shape, moments[name].shape, strict=True))
                new[both] = moments[name][both]
            return new

        return Learning(one, *({name: kept(name, leaf, of) for name, leaf in one.leaves.items()} for of in (self.first, self.second)))


class Leaves:
    """The leaves and moments of the concepts in a pass: while they are in it, nobody else has them.

    `values` and `fixed` {name: [concepts, …]} on the device; of a concept that has none of that name, or a smaller one, the rest is
    zero, gets no gradient and stays zero.
    """

    def __init__(self, setups: Sequence[Combination], everyone: Sequence[Learning], device: torch.device):
        self.setups = list(setups)
        self.values = _stacked([each.one.leaves for each in everyone], device)
        self.fixed = _stacked([each.one.fixed for each in everyone], device)
        self._first = _stacked([each.first for each in everyone], device)
        self._second = _stacked([each.second for each in everyone], device)
        self._ones = [replace(each.one, leaves=_own(each.one.leaves, self.values, place)) for place, each in enumerate(everyone)]

    def __len__(self) -> int:
        return len(self._ones)

    def one(self, place: int) -> Learnable:
        """What a concept learns, as it stands: its leaves are views of `values`."""
        return self._ones[place]

    def copy(self, place: int) -> dict[str, torch.Tensor]:
        """A concept's leaves as they are now, on the device."""
        return {name: leaf.clone() for name, leaf in self._ones[place].leaves.items()}

    def apart(self) -> list[Learning]:
        """Copies of everybody's on the CPU."""
        three = [{name: leaf.cpu() for name, leaf in of.items()} for of in (self.values, self._first, self._second)]
        everyone = []
        for place, one in enumerate(self._ones):
            leaves, first, second = ({name: leaf.clone() for name, leaf in _own(one.leaves, of, place).items()} for of in three)
            everyone.append(Learning(replace(one, leaves=leaves), first, second))
        return everyone

    def group(self, places: Sequence[int], values: Tensors) -> Group:
        """The concepts at `places`, without what none of them has; `values` stand for the leaves' own."""
        ones = [self._ones[place] for place in places]
        leaves = self._chosen(values, places, [one.leaves for one in ones])
        fixed = self._chosen(self.fixed, places, [one.fixed for one in ones])
        return Group(leaves, fixed, max(sum(one.lengths.values()) for one in ones), self.setups[places[0]].condition)

    @torch.no_grad()
    def update(self, gradient: Tensors, step: Step) -> None:
        """One step of everybody's optimiser; those who share one take it together."""
        for places in alike([setup.update for setup in self.setups]):
            own = [self._ones[place].leaves for place in places]
            group = self.group(places, self.values)
            moments = Moments(self._chosen(self._first, places, own), self._chosen(self._second, places, own))
            self.setups[places[0]].update(group, self._chosen(gradient, places, own), moments, step.of(places))
            if len(places) < len(self):  # what was chosen are copies then
                at = torch.tensor(places)
                for whole, moved in ((self.values, group.leaves), (self._first, moments.first), (self._second, moments.second)):
                    for name, part in moved.items():
                        there = whole[name][:, *map(slice, part.shape[1:])]
                        there[at.to(part.device)] = part

    def _chosen(self, stacked: Tensors, places: Sequence[int], own: Sequence[Tensors]) -> dict[str, torch.Tensor]:
        everyone = list(places) == list(range(len(self)))
        chosen = {}
        for name, shape in _largest(own).items():
            whole = stacked[name] if everyone else stacked[name][torch.tensor(places, device=stacked[name].device)]
            chosen[name] = whole[:, *map(slice, shape)]
        return chosen


def alike(keys: Iterable[Hashable]) -> list[list[int]]:
    """The places of equal keys together."""
    groups: dict[Hashable, list[int]] = {}
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    return list(groups.values())


def gradient_norms(gradient: Tensors) -> torch.Tensor:
    """Over all leaves of each concept, [concepts]."""
    return torch.cat([leaf.flatten(1) for leaf in gradient.values()], dim=1).norm(dim=1)


def clipped(gradient: Tensors, norms: torch.Tensor, most: Sequence[float | None]) -> dict[str, torch.Tensor]:
    """Each concept's gradient, of which the `norms` [concepts] are, with a norm of at most its `most`, where it has one."""
    bounds = torch.tensor([math.inf if each is None else each for each in most], device=norms.device)
    share = (norms.reciprocal() * bounds).clamp(max=1)
    return {name: leaf * for_each(share, leaf) for name, leaf in gradient.items()}


def _largest(each: Iterable[Tensors]) -> dict[str, tuple[int, ...]]:
    """The shape of each name that holds everybody's tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    for tensors in each:
        for name, tensor in tensors.items():
            shapes[name] = tuple(map(max, tensor.shape, shapes.get(name, tensor.shape)))
    return shapes


def _stacked(each: Sequence[Tensors], device: torch.device) -> dict[str, torch.Tensor]:
    """Tensors of each name in one, [concepts, …], zero where a concept has none of that name or a smaller one."""
    stacked = {}
    for name, shape in _largest(each).items():
        there = {place: tensors[name].cpu() for place, tensors in enumerate(each) if name in tensors}
        whole = torch.zeros(len(each), *shape, dtype=next(iter(there.values())).dtype)
        for place, tensor in there.items():
            whole[place][tuple(map(slice, tensor.shape))] = tensor
        stacked[name] = whole.to(device)
    return stacked


def _own(of: Tensors, stacked: Tensors, place: int) -> dict[str, torch.Tensor]:
    """A concept's part of stacked tensors, in the shapes that it has: views."""
    return {name: stacked[name][place][tuple(map(slice, tensor.shape))] for name, tensor in of.items()}
