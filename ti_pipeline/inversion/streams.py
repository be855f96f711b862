"""Random streams that depend on nothing but what they are for.

A stream is derived from (seed, concept, purpose, counter), so a checkpoint needs to keep no more than the step,
and what a concept draws does not depend on its company, its device or the steps before.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Streams:
    """The random streams of one concept."""

    seed: int
    concept: str

    def at(self, purpose: str, counter: int) -> torch.Generator:
        """A fresh CPU generator for the draws of one purpose at one step, epoch or picture."""
        name = "\0".join((str(self.seed), self.concept, purpose, str(counter)))
        entropy = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        return torch.Generator().manual_seed(entropy)

    def uniform(self, purpose: str, counter: int, high: int, size: int) -> torch.Tensor:
        """Integers in [0, high), int64 [size]."""
        return torch.randint(high, (size,), generator=self.at(purpose, counter))

    def normal(self, purpose: str, counter: int, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal, float32 [*shape]."""
        return torch.randn(shape, generator=self.at(purpose, counter))

    def rounds(self, purpose: str, first: int, size: int, count: int) -> list[int]:
        """Places `first` to `first + size` of an endless sequence of shuffled rounds over `count` things."""
        shuffled: dict[int, list[int]] = {}
        drawn = []
        for place in range(first, first + size):
            turn, within = divmod(place, count)
            if turn not in shuffled:
                shuffled[turn] = torch.randperm(count, generator=self.at(purpose, turn)).tolist()
            drawn.append(shuffled[turn][within])
        return drawn
