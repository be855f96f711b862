"""AdamW (Loshchilov and Hutter 2019, algorithm 2) on one leaf of many concepts, each with its own count and rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # those of the paper's code, which are PyTorch's


@dataclass(frozen=True)
class Moments:
    """Running means of the gradient and of its square, float32, of the leaf's shape."""

    first: torch.Tensor
    second: torch.Tensor


@torch.no_grad()
def update(leaf: torch.Tensor, gradient: torch.Tensor, moments: Moments, step: torch.Tensor, rate: torch.Tensor, decay: float) -> None:
    """One step in place. `leaf` and `gradient` [concepts, …]; `step` (from 1) and `rate` [concepts], float64 on the CPU."""
    moments.first.lerp_(gradient, 1 - BETA1)
    moments.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)

    def each(values: torch.Tensor) -> torch.Tensor:
        return for_each(values.to(leaf.device, leaf.dtype), leaf)

    leaf.mul_(each(1 - rate * decay))
    denominator = (moments.second.sqrt() / each((1 - BETA2**step).sqrt())).add_(EPSILON)
    leaf.sub_(each(rate / (1 - BETA1**step)) * moments.first / denominator)


def for_each(values: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """`values` [concepts], to be multiplied with a leaf [concepts, …]."""
    return values.view(-1, *[1] * (leaf.ndim - 1))
