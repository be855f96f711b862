"""One concept made ready for training: what it draws from, where its word starts, and what all of it depends on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.files import digest_value
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.initializer import initial_vectors
from ti_pipeline.inversion.latents import encode_pictures
from ti_pipeline.inversion.learner import Learner
from ti_pipeline.inversion.prompts import check_captions, prompts_for
from ti_pipeline.inversion.streams import Streams

VERSION = 2  # raised whenever the same inputs give another vector


@dataclass(frozen=True)
class Job:
    """`start` float32 [n, d] on the CPU; `arithmetic` as `Generator.arithmetic`; `key` is the digest of all that the bits depend on."""

    concept: str
    train: params.Train
    learner: Learner
    start: torch.Tensor
    initializer: str
    arithmetic: Mapping[str, str]
    key: str


@dataclass(frozen=True)
class Waiting:
    """A concept in the queue. `prepare` opens and encodes its pictures and raises ConceptError for what is wrong with it.

    `wanted` tells it from the same concept under other settings before it is prepared.
    """

    concept: str
    steps: int
    wanted: str
    prepare: Callable[[], Job]


def settings_for(manifest: Manifest, train: params.Train) -> params.Train:
    """The section `train` with what the concept itself says about its vectors and steps."""
    own = {"vectors": manifest.vectors, "steps": manifest.steps}
    return train.model_copy(update={key: value for key, value in own.items() if value is not None})


def prepare_job(
    generator: Generator, manifest: Manifest, train: params.Train, seed: int, initializer: str, arithmetic: Mapping[str, str]
) -> Job:
    """`arithmetic` is the training thread's, not that of the thread that prepares.

    Raises ConceptError for a picture that changed, and for a token or prompt that would be lost in silence.
    """
    streams = Streams(seed, manifest.slug)
    prompts = [prompts_for(manifest.kind, manifest.token, p.caption, initializer) for p in manifest.pictures]
    check_captions(generator, manifest, prompts, train.vectors)
    pictures = (manifest.open(picture) for picture in manifest.pictures)
    posteriors = encode_pictures(generator, pictures, train.fit, manifest.background, train.flip)
    key = digest_value(
        {
            "version": VERSION,
            "generator": generator.digest,
            "arithmetic": dict(arithmetic),
            "manifest": manifest.training_digest,
            "train": train.decisive(),
            "seed": seed,
            "initializer": initializer,
        }
    )
    return Job(
        manifest.slug,
        train,
        Learner.prepare(generator, streams, posteriors, prompts, manifest.token, train.vectors),
        initial_vectors(generator, initializer, train.vectors, streams),
        initializer,
        arithmetic,
        key,
    )
