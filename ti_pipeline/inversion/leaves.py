"""What is learnt, of one concept by itself and of many at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from ti_pipeline.inversion.adamw import Moments, for_each, update
from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup


@dataclass(frozen=True)
class Learning:
    """What one concept learns, and the AdamW moments of each leaf, on the CPU."""

    one: Learnable
    moments: Mapping[str, Moments]

    @classmethod
    def begun(cls, one: Learnable) -> Learning:
        return cls(one, {name: Moments.zeros_like(leaf) for name, leaf in one.leaves.items()})

    def going_on(self, one: Learnable) -> Learning:
        """With other leaves from now on: moments stay with their numbers, those of new ones are zero."""
        moments = {}
        for name, leaf in one.leaves.items():
            moments[name] = Moments.zeros_like(leaf.cpu())
            if name in self.moments:
                for old, new in zip(_both(self.moments[name]), _both(moments[name]), strict=True):
                    kept = tuple(slice(min(pair)) for pair in zip(old.shape, new.shape, strict=True))
                    new[kept] = old[kept]
        return Learning(one, moments)


class Leaves:
    """The leaves and moments of the concepts in a pass: while they are in it, nobody else has them.

    `values` and `fixed` {name: [concepts, …]} on the device; of a concept that has none of that name, or a smaller one, the rest is
    zero, gets no gradient and stays zero.
    """

    def __init__(self, setups: Sequence[Setup], everyone: Sequence[Learning], device: torch.device):
        self.setups, self._ones = list(setups), [each.one for each in everyone]
        self.values = _stacked([one.leaves for one in self._ones], device)
        self.fixed = _stacked([one.fixed for one in self._ones], device)
        first = _stacked([{name: of.first for name, of in each.moments.items()} for each in everyone], device)
        second = _stacked([{name: of.second for name, of in each.moments.items()} for each in everyone], device)
        self.moments = {name: Moments(first[name], second[name]) for name in self.values}

    def __len__(self) -> int:
        return len(self._ones)

    def one(self, place: int) -> Learnable:
        """What a concept learns, as it stands: views of it on the device."""
        one = self._ones[place]
        return Learnable(_own(one.leaves, self.values, place), one.lengths, one.prompts, one.fixed)

    def copy(self, place: int) -> dict[str, torch.Tensor]:
        """A concept's leaves as they stand, on the device."""
        return {name: leaf.clone() for name, leaf in self.one(place).leaves.items()}

    def apart(self) -> list[Learning]:
        """Copies of everybody's on the CPU."""
        values = {name: leaf.cpu() for name, leaf in self.values.items()}
        first, second = ({name: getattr(of, moment).cpu() for name, of in self.moments.items()} for moment in ("first", "second"))
        everyone = []
        for place, one in enumerate(self._ones):
            leaves, *both = ({name: part.clone() for name, part in _own(one.leaves, of, place).items()} for of in (values, first, second))
            moments = {name: Moments(both[0][name], both[1][name]) for name in leaves}
            everyone.append(Learning(Learnable(leaves, one.lengths, one.prompts, one.fixed), moments))
        return everyone

    def group(self, places: Sequence[int], values: Mapping[str, torch.Tensor]) -> Group:
        """The concepts at `places`, without what none of them has; `values` stand for the leaves' own."""
        ones = [self._ones[place] for place in places]
        leaves = self._chosen(values, places, [one.leaves for one in ones])
        return Group(leaves, self._chosen(self.fixed, places, [one.fixed for one in ones]))

    def longest(self, places: Iterable[int]) -> int:
        """Rows of all tokens together, of the concept at `places` that has most."""
        return max(sum(self._ones[place].lengths.values()) for place in places)

    @torch.no_grad()
    def update(self, gradient: Mapping[str, torch.Tensor], step: torch.Tensor, rate: torch.Tensor, decay: float) -> None:
        """One step of AdamW; `step` and `rate` [concepts] as there."""
        for name, leaf in self.values.items():
            update(leaf, gradient[name], self.moments[name], step, rate, decay)

    def _chosen(
        self, stacked: Mapping[str, torch.Tensor], places: Sequence[int], own: Sequence[Mapping[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        chosen = {}
        for name, shape in _largest(own).items():
            whole = stacked[name]
            if len(places) < len(self):
                whole = whole[torch.tensor(places, device=whole.device)]
            chosen[name] = whole[:, *map(slice, shape)]
        return chosen


def gradient_norms(gradient: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Over all leaves of each concept, [concepts]."""
    return torch.cat([leaf.flatten(1) for leaf in gradient.values()], dim=1).norm(dim=1)


def clipped(gradient: Mapping[str, torch.Tensor], norms: torch.Tensor, most: float) -> dict[str, torch.Tensor]:
    """Each concept's gradient with a norm of at most `most`."""
    share = (most / norms).clamp(max=1)
    return {name: leaf * for_each(share, leaf) for name, leaf in gradient.items()}


def _both(moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    return moments.first, moments.second


def _largest(each: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, tuple[int, ...]]:
    """The shape of each name that holds everybody's tensor."""
    shapes: dict[str, tuple[int, ...]] = {}
    for tensors in each:
        for name, tensor in tensors.items():
            shapes[name] = tuple(map(max, tensor.shape, shapes.get(name, tensor.shape)))
    return shapes


def _stacked(each: Sequence[Mapping[str, torch.Tensor]], device: torch.device) -> dict[str, torch.Tensor]:
    def padded(tensor: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
        behind = [(0, most - has) for has, most in zip(tensor.shape, shape, strict=True)]
        return F.pad(tensor.cpu(), [edge for pair in reversed(behind) for edge in pair])

    stacked = {}
    for name, shape in _largest(each).items():
        none = torch.zeros(shape, dtype=next(tensors[name].dtype for tensors in each if name in tensors))
        stacked[name] = torch.stack([padded(tensors[name], shape) if name in tensors else none for tensors in each]).to(device)
    return stacked


def _own(of: Mapping[str, torch.Tensor], stacked: Mapping[str, torch.Tensor], place: int) -> dict[str, torch.Tensor]:
    """A concept's part of stacked tensors, in the shapes that it has."""
    return {name: stacked[name][place][tuple(map(slice, tensor.shape))] for name, tensor in of.items()}
