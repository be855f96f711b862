"""What a way of learning has to say for itself, and what it is given.

Importing a setup brings no torch, which takes seconds: params are validated with its settings.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ti_pipeline.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.concepts.manifest import Manifest
    from ti_pipeline.generators.generator import Condition, Generator, Ids
    from ti_pipeline.inversion.learner import Draws, Learner
    from ti_pipeline.inversion.streams import Streams
    from ti_pipeline.params import Train
    from ti_pipeline.words.word import Word


@dataclass(frozen=True)
class Subject:
    """What is to be learnt: a concept, its settings, the frozen generator that the word is for.

    `train` has the concept's own vectors and steps in it; `prompts` are what can be said of each picture, with the token in it.
    """

    generator: Generator
    manifest: Manifest
    train: Train
    initializer: str
    streams: Streams
    prompts: Sequence[Sequence[str]]

    def rows(self, count: int) -> dict[str, Tensor]:
        """Where a word of `count` rows starts from: the initializer's, float32 [count, d] on the CPU for each text encoder."""
        from ti_pipeline.inversion.initializer import initial_rows

        return initial_rows(self.generator, self.initializer, count, self.streams)


@dataclass(frozen=True)
class Learnable:
    """What is learnt of a subject: `leaves`, float32 of any shape. One with the name of a text encoder holds rows for it, [n, d].

    `lengths` are the rows that each token stands for in a prompt, in the order of their ids. `prompts` are those of each picture, one
    of which is drawn when the picture is. `fixed` are tensors that the equations need beside the leaves. A checkpoint keeps leaves and
    lengths; prompts and fixed tensors stay as `Setup.begin` makes them.
    """

    leaves: Mapping[str, Tensor]
    lengths: Mapping[str, int]
    prompts: Sequence[Sequence[str]] = ()
    fixed: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Several subjects in one pass: `leaves` and `fixed` [subjects, …], where a smaller one has zeros behind it.

    What is made of those zeros must be finite, and so must its gradient.
    """

    leaves: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]


class Setup(Section):
    """A way of learning. Its fields are its settings, those of `train.setups` under the name of its module; what stands under a field
    is its description.

    It knows one subject at a time, but for `condition` and `penalty`: there it sees many at once and must keep them apart. What else
    is in the pass, the denoiser, optimiser, schedule, checkpoints and stopping are nothing that it need know of.
    """

    def check(self, train: Train) -> None:
        """Raise ValueError, with the key and what to do, for other settings that make no sense with this setup."""

    def decisive(self) -> dict[str, Any]:
        """What a word depends on by this setup, as JSON values."""
        return {"setup": {type(self).__module__.rpartition(".")[2]: self.model_dump(mode="json")}}

    def longest(self, train: Train) -> int:
        """Rows of the word when it has as many as it will ever have."""
        return train.vectors

    @abstractmethod
    def begin(self, subject: Subject) -> Learnable:
        """What is learnt, as it is before the first step, on the CPU."""

    def draws(self, learner: Learner, step: int, samples: int) -> Draws:
        """What is learnt from in step `step` (from 0)."""
        return learner.draw(step, samples)

    @staticmethod
    @abstractmethod
    def condition(generator: Generator, ids: Ids, group: Group) -> Condition:
        """What the denoiser hears of prompts, `ids` [subjects * samples, context] by text encoder; differentiable in the leaves.

        Row k of subject s has the id V + s * n + k, where the longest word of the group has n rows. It sees no settings, so that
        setups which share it are conditioned in one pass; what it needs of them goes into `fixed`.
        """

    def penalty(self, generator: Generator, group: Group) -> Tensor | None:
        """What is added to the loss of each subject, [subjects]; None is nothing."""
        return None

    def after(self, subject: Subject, one: Learnable, step: int) -> Learnable:
        """What is learnt from now on, after `step` steps; `one` itself where nothing changes, which costs nothing.

        Leaves may change their shapes, come and go. A leaf's AdamW moments stay with its numbers; those of new ones are zero.
        """
        return one

    @abstractmethod
    def word(self, subject: Subject, leaves: Mapping[str, Tensor]) -> Word:
        """The word that the leaves, on the CPU, amount to."""
