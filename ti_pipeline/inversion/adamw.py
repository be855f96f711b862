"""AdamW (Loshchilov and Hutter 2019, algorithm 2) on one leaf of many concepts, each with its own count, rate and decay."""

from __future__ import annotations

import torch

from ti_pipeline.inversion.setups.setup import Step

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # those of the paper's code, which are PyTorch's


@torch.no_grad()
def adamw(leaf: torch.Tensor, gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, step: Step) -> None:
    """One step in place. All [concepts, …]; `first` and `second` are running means of the gradient and of its square."""
    first.lerp_(gradient, 1 - BETA1)
    second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)

    def each(values: torch.Tensor) -> torch.Tensor:
        return for_each(values, leaf)

    leaf.mul_(each(1 - step.rate * step.decay))
    denominator = (second.sqrt() / each((1 - BETA2**step.count).sqrt())).add_(EPSILON)
    leaf.sub_(each(step.rate / (1 - BETA1**step.count)) * first / denominator)


def for_each(values: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """`values` [concepts], to be multiplied with a leaf [concepts, …]."""
    return values.to(leaf.device, leaf.dtype).view(-1, *[1] * (leaf.ndim - 1))
