"""Learning rate as a function of the step alone."""

from __future__ import annotations

import math

from ti_pipeline import params


def peak_rate(train: params.Train) -> float:
    """The set rate, times samples a step when it is to be scaled (the paper: base rate x devices x batch)."""
    return train.learning_rate * (train.batch_size * train.gradient_accumulation if train.scale_learning_rate else 1)


def rate_at(train: params.Train, step: int) -> float:
    """Rate of step `step` (from 0): linear warm-up, then constant, or falling to zero at `train.steps`."""
    peak = peak_rate(train)
    if step < train.warmup_steps:
        return peak * (step + 1) / train.warmup_steps
    if train.schedule == "constant":
        return peak
    done = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)
    return peak * (1 - done if train.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))
