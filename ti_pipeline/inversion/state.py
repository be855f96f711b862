"""How far one concept is."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

COLUMNS = ("step", "loss", "norm", "gradient", "rate")
LAST = 50  # steps that the final loss is the mean of: one step's says little


@dataclass
class State:
    """After `step` steps: `rows`, their AdamW moments and the `best` rows so far, float32 [n, d] on the CPU.

    `log` has a row with COLUMNS for each logged step; `losses` are those of the evaluation batch, one for each
    `train.evaluate_every` steps.
    """

    step: int
    rows: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor
    best: torch.Tensor
    log: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @classmethod
    def at(cls, start: torch.Tensor) -> State:
        return cls(0, start, torch.zeros_like(start), torch.zeros_like(start), start)


@dataclass(frozen=True)
class Trained:
    """`vectors` float32 [n, d] on the CPU, as they were after step `chosen` of `steps`; `log` has a dict with COLUMNS and `evaluation`,
    the loss on the evaluation batch or None, for each logged step; steps count from 1."""

    vectors: torch.Tensor
    log: list[dict[str, float | None]]
    steps: int
    chosen: int
    resumed_from: int
    why: str

    @property
    def final_loss(self) -> float:
        last = [row["loss"] for row in self.log if row["step"] > self.steps - LAST] or [row["loss"] for row in self.log[-1:]]
        return sum(last) / len(last) if last else float("nan")
