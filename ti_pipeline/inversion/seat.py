"""A concept's place in a pack."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

from ti_pipeline.inversion.job import Job
from ti_pipeline.inversion.learner import Draws
from ti_pipeline.inversion.state import COLUMNS, State, Trained


@dataclass(eq=False)
class Seat:
    """`state` is as of the last time that the pack was taken apart, its step, log and losses as of the last reading.

    `step` counts the steps that were started on the device; `draws` are those of the next; `batch` is what it is evaluated on.
    """

    job: Job
    state: State
    resumed_from: int
    batch: Draws | None
    stopped: str = ""
    step: int = field(init=False)
    draws: Future[Draws] | None = None

    def __post_init__(self) -> None:
        self.step = self.state.step

    @property
    def due(self) -> bool:
        """Whether it is to be evaluated after the step just made; the last vector is always looked at."""
        return self.batch is not None and (self.step % self.job.train.evaluate_every == 0 or self.step == self.job.train.steps)

    @property
    def ended(self) -> bool:
        return bool(self.stopped) or self.state.step == self.job.train.steps

    def result(self) -> Trained:
        """Once it has ended: the best vectors on the evaluation batch, or the last where there is none."""
        state, every, chosen = self.state, self.job.train.evaluate_every, self.state.step
        log = [{**dict(zip(COLUMNS, row, strict=True)), "step": int(row[0]), "evaluation": None} for row in state.log]
        if self.batch is not None:
            at = {min((i + 1) * every, state.step): loss for i, loss in enumerate(state.losses)}
            chosen = min(at, key=at.__getitem__)
            log = [{**row, "evaluation": at.get(row["step"])} for row in log]
        vectors = state.rows if self.batch is None else state.best
        why = self.stopped or "all steps done"
        return Trained(vectors, log, state.step, chosen, self.resumed_from, why)
