"""How far one concept is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ti_pipeline.words.word import Word

COLUMNS = ("step", "loss", "norm", "gradient", "rate")
LAST = 50  # steps that the final loss is the mean of: one step's says little


@dataclass
class State:
    """After `step` steps. `log` has a row with COLUMNS for each logged one.

    `losses` are those of the evaluation batch, one for each `train.evaluate_every` steps; `best` are the leaves, float32 on the CPU,
    that had the least of them. `kept` are the leaves as they were after `train.kept_at`, and after the step that training stopped at.
    """

    step: int = 0
    log: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: Mapping[str, torch.Tensor] = field(default_factory=dict)
    kept: dict[int, Mapping[str, torch.Tensor]] = field(default_factory=dict)

    @property
    def final_loss(self) -> float:
        last = [loss for step, loss, *_ in self.log if step > self.step - LAST] or [loss for _, loss, *_ in self.log[-1:]]
        return sum(last) / len(last) if last else float("nan")


@dataclass(frozen=True)
class Trained:
    """`word` is what it was after step `chosen` of `steps`; `log` has a dict with COLUMNS and `evaluation`, the loss on the evaluation
    batch or None, for each logged step; steps count from 1. `kept` are the words that it was after the steps of `train.kept_at` that it
    reached, and after the last."""

    word: Word
    log: list[dict[str, float | None]]
    steps: int
    chosen: int
    resumed_from: int
    why: str
    final_loss: float
    kept: dict[int, Word]
