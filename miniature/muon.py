"""Muon (Jordan 2024): momentum whose update is brought near an orthogonal matrix, for every weight that is one."""

from __future__ import annotations

import torch

SLOWNESS = 0.02


def orthogonalise(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Newton-Schulz iteration with Jordan's quintic: singular values of `[rows, columns]` go near one.

    Every iterate is a polynomial in X Xᵀ times X, so the iteration runs on the small square matrix alone.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    gram, product = x @ x.T, None
    for step in range(steps):
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal().add_(a)
        product = polynomial if product is None else polynomial @ product
        if step < steps - 1:
            gram = polynomial @ (polynomial @ gram)
    x = product @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Muon on tensors of two and more dimensions (convolutions flattened), AdamW on the rest and on `adam`.

    `lr` is the step of Muon in units of the root mean square of a weight's update; `adam_lr` that of AdamW. Parameters in `slow`
    take `SLOWNESS` of them.
    """

    def __init__(
        self,
        named_parameters,
        lr: float = 0.02,
        adam_lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        adam: tuple[str, ...] = (),
        slow: tuple[str, ...] = (),
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ):
        groups = {(matrix, slowed): [] for matrix in (True, False) for slowed in (False, True)}
        for name, p in named_parameters:
            matrix = p.ndim >= 2 and min(p.shape[0], p[0].numel()) >= 8 and not any(part in name for part in adam)
            groups[matrix, any(part in name for part in slow)].append(p)
        rate = {key: (lr if key[0] else adam_lr) * (SLOWNESS if key[1] else 1) for key in groups}
        super().__init__(
            [{"params": ps, "lr": rate[key], "base": rate[key], "matrix": key[0]} for key, ps in groups.items() if ps],
            {"momentum": momentum, "weight_decay": weight_decay, "steps": steps, "dtype": dtype},
        )

    def scale(self, by: float) -> None:
        """Set every rate to this multiple of its base."""
        for group in self.param_groups:
            group["lr"] = group["base"] * by

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            update = self._muon if group["matrix"] else self._adam
            for p in group["params"]:
                if p.grad is not None:
                    update(p, group, self.state[p])

    def _muon(self, p, group, state):
        if not state:
            state["momentum"] = torch.zeros_like(p, memory_format=torch.contiguous_format)
        velocity = state["momentum"].mul_(group["momentum"]).add_(p.grad)
        look_ahead = p.grad.add(velocity, alpha=group["momentum"])
        flat = look_ahead.reshape(p.shape[0], -1).to(group["dtype"])
        update = orthogonalise(flat, group["steps"]).to(p.dtype) * max(1, flat.shape[0] / flat.shape[1]) ** 0.5
        p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.reshape(p.shape), alpha=-group["lr"])

    def _adam(self, p, group, state):
        if not state:
            state.update(step=torch.zeros(()), first=torch.zeros_like(p), second=torch.zeros_like(p))
        state["step"] += 1
        first = state["first"].lerp_(p.grad, 0.1)
        second = state["second"].lerp_(p.grad.square(), 0.01)
        count = state["step"].item()
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.addcdiv_(first / (1 - 0.9**count), (second / (1 - 0.99**count)).sqrt().add_(1e-8), value=-group["lr"])
