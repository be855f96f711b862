"""A pack of one, for tests of what a training does to a concept."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.job import Job, Waiting, prepare_job
from ti_pipeline.inversion.setups.setup import Subject
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.inversion.train import Progress, train_pack


def job_of(
    generator: Generator, manifest: Manifest, train: params.Train, seed: int, initializer: str, arithmetic: dict[str, str] | None = None
) -> Job:
    """Made ready by itself, in this thread."""
    subject = Subject(generator, manifest, train, initializer, Streams(seed, manifest.slug))
    return prepare_job(subject, generator.arithmetic if arithmetic is None else arithmetic)


def train_concept(
    generator: Generator,
    manifest: Manifest,
    train: params.Train,
    seed: int,
    *,
    checkpoint: Path,
    initializer: str,
    progress: Progress | None = None,
) -> Trained:
    """Textual inversion of one concept (Gal et al. 2022, eq. 2): a pack of one. Raises ConceptError for a training that went wrong."""
    arithmetic = generator.arithmetic
    waiting = Waiting(manifest.slug, train.steps, "", lambda: job_of(generator, manifest, train, seed, initializer, arithmetic))
    (ended,) = train_pack(generator, [waiting], train, checkpoint, progress=progress)
    if ended.error:
        raise ended.error
    return ended.trained
