"""AdamW (Loshchilov and Hutter 2019, algorithm 2) on learnt rows only, each concept with its own count and rate."""

from __future__ import annotations

from dataclasses import dataclass

import torch

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # those of the paper's code, which are PyTorch's


@dataclass
class Moments:
    """Running means of the gradient and of its square, float32 [concepts, n, d] as the rows are."""

    first: torch.Tensor
    second: torch.Tensor

    @classmethod
    def zeros_like(cls, rows: torch.Tensor) -> Moments:
        return cls(torch.zeros_like(rows), torch.zeros_like(rows))


@torch.no_grad()
def update(rows: torch.Tensor, gradient: torch.Tensor, moments: Moments, step: torch.Tensor, rate: torch.Tensor, decay: float) -> None:
    """One step in place. `rows` and `gradient` [concepts, n, d]; `step` (from 1) and `rate` [concepts], float64 on the CPU."""
    moments.first.lerp_(gradient, 1 - BETA1)
    moments.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)

    def column(values: torch.Tensor) -> torch.Tensor:
        return values.to(rows.device, rows.dtype)[:, None, None]

    rows.mul_(column(1 - rate * decay))
    denominator = (moments.second.sqrt() / column((1 - BETA2**step).sqrt())).add_(EPSILON)
    rows.sub_(column(rate / (1 - BETA1**step)) * moments.first / denominator)
