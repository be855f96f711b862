"""One concept made ready for training: what it draws from, where its word starts, and what all of it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ti_pipeline import params
from ti_pipeline.files import digest_value
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.placeholder import check_prompt, check_token
from ti_pipeline.inversion.checkpoint import Saved
from ti_pipeline.inversion.framing import Framing
from ti_pipeline.inversion.latents import Posteriors, encode_pictures
from ti_pipeline.inversion.learner import Learner
from ti_pipeline.inversion.objective import Objective, check_learning
from ti_pipeline.inversion.prompts import check_captions
from ti_pipeline.inversion.setups.setup import Combination, Learnable, Subject
from ti_pipeline.inversion.streams import Streams

VERSION = 2  # raised whenever the same inputs give another vector


@dataclass(frozen=True)
class Job:
    """`one` is what is learnt, as it starts; `arithmetic` as `Generator.arithmetic`; `key` is the digest of all that the bits depend on.

    `concept` is its name in the pack: two of one concept, with other settings or another seed, need names of their own.
    """

    concept: str
    subject: Subject
    one: Learnable
    learner: Learner
    arithmetic: Mapping[str, str]
    key: str

    @property
    def train(self) -> params.Train:
        return self.subject.train

    @cached_property
    def setup(self) -> Combination:
        return self.train.chosen

    def again(self, name: str, train: params.Train, seed: int) -> Job:
        """The same pictures and initializer, which are not encoded and chosen anew, under another name in the pack.

        `train` must fit, flip and mask the pictures alike. Raises ConceptError as `prepare_job`.
        """
        subject = replace(self.subject, train=train, streams=Streams(seed, self.subject.manifest.slug))
        return replace(_job(subject, self.learner.posteriors, self.arithmetic), concept=name)


@dataclass(frozen=True)
class Waiting:
    """A concept in the queue, by its name in the pack. `prepare` opens and encodes its pictures and raises ConceptError for what is
    wrong with it.

    `wanted` tells it from the same concept under other settings before it is prepared. `saved` is how far it is in another training's
    checkpoint, from where it goes on.
    """

    concept: str
    steps: int
    wanted: str
    prepare: Callable[[], Job]
    saved: Saved | None = None


def prepare_job(subject: Subject, arithmetic: Mapping[str, str]) -> Job:
    """`arithmetic` is the training thread's, not that of the thread that prepares.

    Raises ConceptError for a picture that changed, and for a token or prompt that would be lost in silence.
    """
    generator, manifest, train = subject.generator, subject.manifest, subject.train
    check_captions(generator, manifest, subject.prompts, train.longest)
    pictures = (manifest.open(picture) for picture in manifest.pictures)
    masks = (manifest.open_mask(picture) if train.masks == "auto" else None for picture in manifest.pictures)
    return _job(subject, encode_pictures(generator, pictures, Framing(train.fit, manifest.background, train.flip), masks), arithmetic)


def _job(subject: Subject, posteriors: Posteriors, arithmetic: Mapping[str, str]) -> Job:
    generator, manifest, train, prompts = subject.generator, subject.manifest, subject.train, subject.prompts
    check_token(generator, manifest.slug, manifest.token)
    _check(generator, manifest.slug, prompts, {manifest.token: train.longest})  # before there is anything of that length
    check_learning(train, generator)
    one = train.chosen.begin(subject)
    if one.prompts is not prompts:
        _check(generator, manifest.slug, one.prompts, {**one.lengths, manifest.token: train.longest})
    objective = Objective.of(train, generator)
    learner = Learner(subject.streams, generator.timesteps, posteriors, (), instead=subject.initializer, objective=objective)
    learner = learner.saying(generator, one.prompts, one.lengths)
    key = digest_value(
        {
            "version": VERSION,
            "generator": generator.digest,
            "arithmetic": dict(arithmetic),
            "manifest": manifest.training_digest,
            "train": train.decisive(),
            "seed": subject.streams.seed,
            "initializer": subject.initializer,
            **({"encoders": [*generator.learning]} if generator.learning.keys() != generator.encoders.keys() else {}),
            **({"density": generator.density} if generator.density else {}),
            **({"ranker": subject.sight().digest} if subject.sight and train.chosen.looks else {}),
            **({"start": subject.start.digest} if subject.start else {}),
        }
    )
    return Job(manifest.slug, subject, one, learner, arithmetic, key)


def _check(generator: Generator, concept: str, prompts: Sequence[Sequence[str]], lengths: Mapping[str, int]) -> None:
    """Raise ConceptError for a prompt of which the end, or the word, would be lost in silence."""
    for prompt in dict.fromkeys(prompt for each in prompts for prompt in each):
        check_prompt(generator, concept, prompt, lengths)
