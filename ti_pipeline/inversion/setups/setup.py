"""What a way of learning has to say for itself, and what it is given.

Importing a setup brings no torch, which takes seconds: params are validated with its settings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar

from ti_pipeline.errors import ParamsError
from ti_pipeline.section import Section

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.concepts.manifest import Manifest
    from ti_pipeline.generators.generator import Condition, Generator, Ids
    from ti_pipeline.generators.source import Source
    from ti_pipeline.inversion.draws import Draws
    from ti_pipeline.inversion.initializer import RowOfEach
    from ti_pipeline.inversion.learner import Learner
    from ti_pipeline.inversion.matching import Sight
    from ti_pipeline.inversion.streams import Streams
    from ti_pipeline.params import Train
    from ti_pipeline.words.word import Word


@dataclass(frozen=True)
class Subject:
    """What is to be learnt: a concept, its settings, the frozen generator that the word is for.

    `train` has the concept's own vectors and steps in it; `sight` gives a CLIP to setups that LOOK, and is there for these. `start` is
    another word that this one goes on from, in the place of the initializer.
    """

    generator: Generator
    manifest: Manifest
    train: Train
    initializer: str
    streams: Streams
    sight: Callable[[], Sight] | None = None
    start: Word | None = None

    @cached_property
    def prompts(self) -> Sequence[Sequence[str]]:
        """What can be said of each picture, with the token in it."""
        from ti_pipeline.inversion.prompts import prompts_for

        neutral, token = self.manifest.neutral, self.manifest.token
        return [prompts_for(neutral, token, picture.caption, self.initializer) for picture in self.manifest.pictures]

    def rows(self, count: int, row_of_each: RowOfEach | None = None) -> dict[str, Tensor]:
        """Where a word of `count` rows starts from, float32 [count, d] on the CPU for each text encoder: what `row_of_each` says for each
        of the initializer's words; without it, the rows of `start`, or those of the words in the vocabulary."""
        from ti_pipeline.inversion.initializer import initial_rows, rows_of, words_in_table

        usual = rows_of(self.start.rows, self.generator) if self.start else words_in_table
        return initial_rows(self.generator, self.initializer, count, self.streams, row_of_each or usual)


@dataclass(frozen=True)
class Learnable:
    """What is learnt of a subject: `leaves`, float32 of any shape. One with the name of a text encoder holds the word's rows for it,
    [n, d]; one that has more behind the name and a dot, other rows for it.

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

    What is made of those zeros must be finite, and so must its gradient. `rows` are those of all tokens of the subject that has most;
    `condition` is that of their common setup.
    """

    leaves: Mapping[str, Tensor]
    fixed: Mapping[str, Tensor]
    rows: int
    condition: Callable[[Generator, Ids, Group], Condition]

    def apart(self, generator: Generator, ids: Ids) -> Ids:
        """Ids [subjects * samples, context] on the device, in which every subject's first row has the id V: as `Setup.condition` takes
        them, where row k of subject s has the id V + s * rows + k."""
        import torch

        apart, subjects = {}, len(next(iter(self.leaves.values())))
        for encoder, of in ids.items():
            shift = torch.arange(subjects, device=of.device).repeat_interleave(len(of) // subjects) * self.rows
            apart[encoder] = torch.where(of >= len(generator.encoders[encoder].table), of + shift[:, None], of)
        return apart


@dataclass(frozen=True)
class Moments:
    """What an update keeps of each leaf from step to step, in its shape: zero before the first."""

    first: Mapping[str, Tensor]
    second: Mapping[str, Tensor]


@dataclass(frozen=True)
class Step:
    """Of each subject, float64 [subjects] on the CPU: which of its steps this is (from 1), its rate, its weight decay."""

    count: Tensor
    rate: Tensor
    decay: Tensor

    def of(self, places: Sequence[int]) -> Step:
        """That of some of them."""
        return Step(*(each[list(places)] for each in (self.count, self.rate, self.decay)))


CHANGES = {
    "start": "where its vectors start",
    "length": "how many vectors it has",
    "prompts": "what is said of its pictures",
    "condition": "what the denoiser hears of its vectors",
    "update": "how a step moves its vectors",
    "anchor": "what its vectors are held near to (a vector that joins later has nothing there)",
}
"""What setups may change about a word, in the order in which they do."""


class Setup(Section):
    """A way of learning. Its fields are its settings, those of `train.setups` under the name of its module; what stands under a field
    is its description.

    It says what differs from the plain word, which is there where nobody changes anything: `train.vectors` rows in the table of each
    text encoder that learns, moved by AdamW. Several are combined when they change different things; each then gets what those before
    it left.

    It knows one subject at a time, but for `condition`, `penalty` and `update`: there it sees many at once and must keep them apart.
    What else is in the pass, the denoiser, schedule, checkpoints and stopping are nothing that it need know of.
    """

    CHANGES: ClassVar[frozenset[str]] = frozenset()
    """Of CHANGES: what no other setup in the combination can change. A penalty, like draws beside the others, is added to those there."""

    LOOKS: ClassVar[bool] = False
    """Whether it sees the pictures through the ranker, on which a word depends then."""

    def check(self, train: Train) -> None:
        """Raise ValueError, with the key and what to do, for other settings that make no sense with this setup."""

    @property
    def needs_layers(self) -> bool:
        """Whether it is nothing for a generator without cross-attention layers."""
        return False

    def decisive(self) -> dict[str, Any]:
        """What a word depends on by this setup, as JSON values under its name."""
        return {name_of(self): self.model_dump(mode="json")}

    def longest(self, train: Train) -> int | None:
        """Rows of the word when it has as many as it will ever have; None where that is `train.vectors`."""
        return None

    def rows(self, generator: Generator, count: int) -> int:
        """Rows that are learnt for each text encoder, where a word would have `count` without this setup."""
        return count

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        """What is learnt, as it is before the first step, on the CPU; `one` is what it would be without this setup."""
        return one

    def draws(self, learner: Learner, draws: Draws, step: int) -> Draws:
        """What is learnt from in step `step` (from 0): `draws`, or others with as many samples, or more `beside` them."""
        return draws

    @staticmethod
    def condition(generator: Generator, ids: Ids, group: Group) -> Condition:
        """What the denoiser hears of prompts, `ids` [subjects * samples, context] by text encoder; differentiable in the leaves.

        Row k of subject s has the id V + s * group.rows + k. It sees no settings, so that setups which share it are conditioned in one
        pass; what it needs of them goes into `fixed`.
        """
        return generator.condition(ids, {encoder: group.leaves[encoder].flatten(0, 1) for encoder in generator.learning})

    def penalty(self, generator: Generator, group: Group, draws: Draws) -> Tensor | None:
        """What is added to the loss of each subject, [subjects]; None is nothing. `draws` are those of the group, on the device: its
        subjects one after the other, [subjects * samples, …], their ids as `condition` takes them."""
        return None

    @staticmethod
    def update(group: Group, gradient: Mapping[str, Tensor], moments: Moments, step: Step) -> None:
        """Move the leaves of the group by one step, and their moments, in place; `gradient` of each leaf, in its shape.

        It sees no settings, like `condition`. Where a smaller leaf has zeros behind it, there must be zeros afterwards.
        """
        from ti_pipeline.inversion.adamw import adamw

        for name, leaf in group.leaves.items():
            adamw(leaf, gradient[name], moments.first[name], moments.second[name], step)

    def after(self, subject: Subject, one: Learnable, step: int) -> Learnable:
        """What is learnt from now on, after `step` steps; `one` itself where nothing changes, which costs nothing.

        Leaves may change their shapes, come and go. A leaf's moments stay with its numbers; those of new ones are zero.
        """
        return one

    def word(self, subject: Subject, word: Word, leaves: Mapping[str, Tensor]) -> Word:
        """The word that the leaves, on the CPU, amount to; `word` is what it would be without this setup."""
        return word


def anchors(rows: Mapping[str, Tensor], encoders: Iterable[str]) -> dict[str, Tensor]:
    """The rows of each text encoder, under the names that they have among `fixed` tensors when a word is held near to them."""
    return {f"anchor.{encoder}": rows[encoder] for encoder in encoders}


def name_of(setup: Setup) -> str:
    return type(setup).__module__.rpartition(".")[2]


@dataclass(frozen=True)
class Combination:
    """One setup or several with their settings, as the trainer asks them."""

    parts: tuple[Setup, ...]

    def __post_init__(self) -> None:
        def place(part: Setup) -> tuple[int, str]:
            return min((list(CHANGES).index(change) for change in part.CHANGES), default=len(CHANGES)), name_of(part)

        object.__setattr__(self, "parts", tuple(sorted(self.parts, key=place)))

    def check(self, train: Train) -> None:
        """Raise ValueError for setups that do not go together, and for other settings that do not go with one of them."""
        for one, other in combinations(sorted(self.parts, key=name_of), 2):
            for change, what in CHANGES.items():
                if change in one.CHANGES & other.CHANGES:
                    raise ValueError(f"{name_of(one)} and {name_of(other)} do not go together: each of them says of a word {what}")
        for part in self.parts:
            part.check(train)

    def check_generator(self, generator: Generator | Source) -> None:
        """Raise ParamsError for a generator, loaded or not, that one of them is nothing for."""
        if needing := [name_of(part) for part in self.parts if part.needs_layers and not generator.layers]:
            raise ParamsError(
                f"train.setup: {needing[0]} needs the cross-attention layers of a U-Net as it is set, and {generator.name} has none. "
                "Choose another setup, or a model with a U-Net (generator.model)."
            )

    def check_start(self) -> None:
        """Raise ValueError for a word that is to go on from another, where one of them says itself where it starts."""
        if own := [name_of(part) for part in self.parts if "start" in part.CHANGES]:
            raise ValueError(f"{own[0]} says itself where a word's vectors start. Take start_from out, or choose another train.setup")

    def decisive(self) -> dict[str, Any]:
        """What a word depends on by its setups, as JSON values; nothing where it is learnt as it was when there were none."""
        each = {name: settings for part in self.parts for name, settings in part.decisive().items()}
        return {"setup": each} if each else {}

    def longest(self, train: Train) -> int:
        return max((rows for part in self.parts if (rows := part.longest(train)) is not None), default=train.vectors)

    def rows(self, generator: Generator, train: Train) -> int:
        """Rows that are learnt for each text encoder when there are as many as there will ever be."""
        count = self.longest(train)
        for part in self.parts:
            count = part.rows(generator, count)
        return count

    def begin(self, subject: Subject) -> Learnable:
        vectors = subject.train.vectors
        one = Learnable(subject.rows(vectors), {subject.manifest.token: vectors}, subject.prompts)
        for part in self.parts:
            one = part.begin(subject, one)
        return one

    def draws(self, learner: Learner, step: int, samples: int) -> Draws:
        draws = learner.draw(step, samples)
        for part in self.parts:
            draws = part.draws(learner, draws, step)
        return draws

    @property
    def condition(self) -> Callable[[Generator, Ids, Group], Condition]:
        return self._who("condition").condition

    @property
    def update(self) -> Callable[[Group, Mapping[str, Tensor], Moments, Step], None]:
        return self._who("update").update

    @property
    def looks(self) -> bool:
        """Whether one of them needs the ranker."""
        return any(part.LOOKS for part in self.parts)

    @property
    def penalised(self) -> tuple[Setup, ...]:
        """Those that add to the loss."""
        return tuple(part for part in self.parts if type(part).penalty is not Setup.penalty)

    def after(self, subject: Subject, one: Learnable, step: int) -> Learnable:
        for part in self.parts:
            one = part.after(subject, one, step)
        return one

    def word(self, subject: Subject, leaves: Mapping[str, Tensor]) -> Word:
        from ti_pipeline.words.word import Word

        rows = {encoder: leaves[encoder] for encoder in subject.generator.learning}
        word = Word(subject.manifest.token, rows, class_words=subject.initializer)
        for part in self.parts:
            word = part.word(subject, word, leaves)
        return word

    def _who(self, change: str) -> type[Setup]:
        return next((type(part) for part in self.parts if change in part.CHANGES), Setup)
