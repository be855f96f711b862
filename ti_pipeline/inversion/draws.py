"""What is learnt from in a step: of one concept by itself, and of many in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.nn import functional as F

from ti_pipeline.generators.generator import Ids
from ti_pipeline.inversion.leaves import alike

Rows = slice | torch.Tensor


@dataclass(frozen=True)
class Draws:
    """What one concept learns from in one step, or several one after the other. `ids` [samples, context] by text encoder, `t` [samples],
    `z0` and `noise` [samples, c, h, w]; `beside` [samples, …] is what setups need besides, by names of their own.

    `weight` [samples, 1, h, w] is how much the squared error of each place counts; None is 1. `extents` are height and width of each
    sample's latent, which has nothing beyond them; None is that of `z0`.
    """

    ids: Ids
    t: torch.Tensor
    z0: torch.Tensor
    noise: torch.Tensor
    beside: Mapping[str, torch.Tensor] = field(default_factory=dict)
    weight: torch.Tensor | None = None
    extents: tuple[tuple[int, int], ...] | None = None

    def part(self, part: int, parts: int) -> Draws:
        """One of several equal parts of the samples."""
        size = len(self.t) // parts
        return self.rows(range(part * size, (part + 1) * size))

    def rows(self, rows: range) -> Draws:
        """Some of the samples."""
        at = slice(rows.start, rows.stop)
        ids, beside = ({name: of[at] for name, of in each.items()} for each in (self.ids, self.beside))
        weight = None if self.weight is None else self.weight[at]
        return Draws(ids, self.t[at], self.z0[at], self.noise[at], beside, weight, self.extents and self.extents[at])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of `z0`."""
        return self.z0.shape[-2], self.z0.shape[-1]

    def by_extent(self, of: Callable[[Rows, Draws], torch.Tensor], dim: int = 0) -> torch.Tensor:
        """What `of` makes of the samples along `dim`, all in their order. It is given those of one size at a time, as a denoiser takes
        them: which they are, and their draws without what is beyond them, without ids and without `beside`."""
        if self.extents is None:
            return of(slice(None), self)
        groups, made = alike(self.extents), []
        for group in groups:
            rows, (height, width) = torch.tensor(group, device=self.t.device), self.extents[group[0]]
            z0, noise = (each[rows, :, :height, :width] for each in (self.z0, self.noise))
            weight = None if self.weight is None else self.weight[rows, :, :height, :width]
            made.append(of(rows, Draws({}, self.t[rows], z0, noise, weight=weight)))
        order = torch.tensor([i for group in groups for i in group], device=self.t.device)
        return torch.cat(made, dim).index_select(dim, order.argsort())


def together(each: Sequence[Draws], device: torch.device) -> Draws:
    """Everybody's draws one after the other, on the device; of `beside`, what all of them have."""
    extents, (height, width) = None, each[0].shape
    if any(own.extents or own.shape != (height, width) for own in each):
        extents = tuple(extent for own in each for extent in own.extents or [own.shape] * len(own.t))
        height, width = (max(sides) for sides in zip(*(own.shape for own in each), strict=True))

    def latents(of: Iterable[torch.Tensor]) -> torch.Tensor:
        return _gather([_padded(each, height, width) for each in of], device)

    weight = None
    if any(own.weight is not None for own in each):
        weight = latents(torch.ones(len(own.t), 1, 1, 1) if own.weight is None else own.weight for own in each)
    return Draws(
        _named([own.ids for own in each], device),
        _gather([own.t for own in each], device),
        latents(own.z0 for own in each),
        latents(own.noise for own in each),
        _named([own.beside for own in each], device),
        weight,
        extents,
    )


def _named(each: Sequence[Mapping[str, torch.Tensor]], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: _gather([own[name] for own in each], device) for name in each[0] if all(name in own for own in each)}


def _padded(of: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[samples, c, h, w] as [samples, c, height, width]: one number for all places spread over them, others with zeros behind them."""
    if of.shape[-2:] == (1, 1):
        return of.expand(-1, -1, height, width)
    return of if of.shape[-2:] == (height, width) else F.pad(of, (0, width - of.shape[-1], 0, height - of.shape[-2]))


def _gather(parts: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Everybody's draws in one tensor on the device; the copy does not wait where the memory is pinned."""
    whole = torch.cat(list(parts))
    return (whole.pin_memory() if device.type == "cuda" else whole).to(device, non_blocking=True)
