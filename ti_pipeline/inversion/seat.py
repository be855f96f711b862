"""A concept's place in a pack."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import torch

from ti_pipeline.inversion.checkpoint import Saved
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.job import Job
from ti_pipeline.inversion.learner import Learner
from ti_pipeline.inversion.leaves import Learning
from ti_pipeline.inversion.setups.setup import Learnable
from ti_pipeline.inversion.state import COLUMNS, State, Trained
from ti_pipeline.words.word import Word


@dataclass(eq=False)
class Seat:
    """`state` is as of the last reading; `learning` is None while the concept is in a pass, whose Leaves have it then.

    `step` counts the steps that were started on the device; `draws` are those of the next; `batch` is what it is evaluated on.
    """

    job: Job
    state: State
    learning: Learning | None
    learner: Learner
    batch: Draws | None = None
    stopped: str = ""
    draws: Future[Draws] = field(init=False)
    step: int = field(init=False)
    resumed_from: int = field(init=False)
    keep: frozenset[int] = field(init=False)
    told: int = field(init=False, default=-1)

    def __post_init__(self) -> None:
        self.step = self.resumed_from = self.state.step
        self.keep = frozenset(self.job.train.kept_at)
        if self.step == 0 and self.step in self.keep:
            self.state.kept[0] = self.job.one.leaves
        self._fix_batch()

    @classmethod
    def at(cls, job: Job, saved: Saved | None) -> Seat:
        """At the start or, with what a checkpoint has of this very job, from there; a step that was not kept is not to be had again."""
        if saved is None or saved.key != job.key or any(s <= saved.state.step and s not in saved.state.kept for s in job.train.kept_at):
            return cls(job, State(), Learning.begun(job.one), job.learner)
        there = saved.learning.one.leaves
        in_order = dict.fromkeys([*job.one.leaves, *there])  # a norm over several is a sum, and a file has an order of its own
        one = replace(job.one, leaves={name: there[name] for name in in_order if name in there}, lengths=saved.learning.one.lengths)
        return cls(job, saved.state, replace(saved.learning, one=one), _learner(job, job.learner, job.one, one))

    def give(self) -> Learning:
        """What it learns, which is the pass's from now on."""
        learning, self.learning = self.learning, None
        assert learning is not None
        return learning

    def go_on(self, before: Learnable, one: Learnable) -> None:
        """Learn from what is said of `one` from now on."""
        self.learner = _learner(self.job, self.learner, before, one)
        self._fix_batch()

    def _fix_batch(self) -> None:
        if self.job.train.early_stopping != "none":
            self.batch = self.learner.evaluation(self.job.train.evaluate_samples)

    @property
    def due(self) -> bool:
        """Whether it is to be evaluated after the step just made; the last vector is always looked at."""
        return self.batch is not None and (self.step % self.job.train.evaluate_every == 0 or self.step == self.job.train.steps)

    @property
    def ended(self) -> bool:
        return bool(self.stopped) or self.state.step == self.job.train.steps

    def news(self) -> list[tuple[int, Word]]:
        """Kept words, with their steps, that were not asked for before."""
        new = [step for step in sorted(self.state.kept) if step > self.told and step in self.keep]
        self.told = max(new, default=self.told)
        return [(step, self.job.setup.word(self.job.subject, self.state.kept[step])) for step in new]

    def result(self, leaves: Mapping[str, torch.Tensor]) -> Trained:
        """Once it has ended: the word that was best on the evaluation batch, or of the last `leaves` where there is none."""
        state, every, chosen = self.state, self.job.train.evaluate_every, self.state.step
        last = {state.step: state.kept.get(state.step, leaves)}  # where it was stopped, the leaves have gone on since
        kept = {step: each for step, each in state.kept.items() if step in self.keep} | last
        at: dict[int, float] = {}
        if self.batch is not None:
            at = {min((i + 1) * every, state.step): loss for i, loss in enumerate(state.losses)}
        if at:  # empty where no step was to be done
            chosen, leaves = min(at, key=at.__getitem__), state.best
        log = [{**dict(zip(COLUMNS, row, strict=True)), "step": int(row[0]), "evaluation": at.get(int(row[0]))} for row in state.log]
        words = {step: self.job.setup.word(self.job.subject, each) for step, each in sorted(kept.items())}
        word, why = self.job.setup.word(self.job.subject, leaves), self.stopped or "all steps done"
        return Trained(word, log, state.step, chosen, self.resumed_from, why, state.final_loss, words)


def _learner(job: Job, learner: Learner, before: Learnable, one: Learnable) -> Learner:
    return learner if one.lengths == before.lengths else learner.saying(job.subject.generator, one.prompts, one.lengths)
