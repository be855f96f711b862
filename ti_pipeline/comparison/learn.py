"""Learns the words that a comparison lacks, those of all concepts, arms and seeds in common packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.comparison.cells import Files, Lesson
from ti_pipeline.comparison.course import Course
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.files import digest_value, write_text
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.checkpoint import concepts_in
from ti_pipeline.inversion.job import Job, Waiting, prepare_job
from ti_pipeline.inversion.setups.setup import Subject
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.inversion.train import train_pack
from ti_pipeline.words.files import write_word
from ti_pipeline.words.start import for_generator, read_start

if TYPE_CHECKING:
    from ti_pipeline.inversion.matching import Sight
    from ti_pipeline.params import Train

# What all of a pack have in common; the rest is each one's own.
COMMON = ("batch_size", "gradient_accumulation", "weight_decay", "clip_gradient", "max_norm", "evaluate_samples")


@dataclass(frozen=True)
class Learnt:
    """A word that is on the disk now, after `seconds` of training; or the `error` that it came to nothing of."""

    lesson: Lesson
    seconds: float
    error: Exception | None = None


@dataclass
class School:
    """Makes jobs; the pictures of a concept are encoded once for all of its arms and seeds, which come one after the other."""

    generator: Generator
    choose_initializer: Callable[[Manifest], str]
    sight: Callable[[], Sight]
    arithmetic: Mapping[str, str] = field(init=False)
    _slug: str = field(default="", init=False)
    _jobs: dict[str, Job] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.arithmetic = self.generator.arithmetic  # the training thread's, not that of the thread that prepares

    def prepare(self, lesson: Lesson) -> Job:
        """Raises ConceptError for what is wrong with the concept, or with what the arm asks of it."""
        manifest, train = lesson.manifest, lesson.train
        if manifest.slug != self._slug:
            self._slug, self._jobs = manifest.slug, {}
        pictures = digest_value([manifest.training_digest, train.fit, train.flip, train.masks])
        if pictures not in self._jobs:
            initializer = manifest.initializer or self.choose_initializer(manifest)
            start, streams = None, Streams(lesson.seed, manifest.slug)
            if manifest.start:
                word = read_start(manifest.slug, manifest.start)
                start = for_generator(word, manifest.slug, manifest.start.name, self.generator)
            subject = Subject(self.generator, manifest, train, initializer, streams, self.sight, start)
            self._jobs[pictures] = prepare_job(subject, self.arithmetic)
        return self._jobs[pictures].again(lesson.name, train, lesson.seed)


def learn(school: School, files: Files, lessons: Sequence[Lesson], course: Course, *, force: bool = False) -> Iterator[Learnt]:
    """Learn every word; each is on the disk when it is yielded, and a next call goes on from the checkpoints of this one."""
    packs: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        packs.setdefault(_common(lesson.train), []).append(lesson)
    for name, pack in packs.items():
        checkpoint = files.checkpoint(name)
        if force:
            checkpoint.unlink(missing_ok=True)
        for learnt in _learn_together(school, files, pack, checkpoint, course):
            course.learnt += 1
            yield learnt
        checkpoint.unlink(missing_ok=True)


def unfinished(files: Files, lessons: Sequence[Lesson]) -> set[str]:
    """Names of those that a checkpoint holds: they are learnt again with the others although they may be done, so that all have the
    company that they had."""
    return {name for pack in {_common(lesson.train) for lesson in lessons} for name in concepts_in(files.checkpoint(pack))}


def _learn_together(school: School, files: Files, lessons: Sequence[Lesson], checkpoint: Path, course: Course) -> Iterator[Learnt]:
    train, named, before = lessons[0].train, {lesson.name: lesson for lesson in lessons}, 0
    samples = train.batch_size * train.gradient_accumulation

    def progress(done: int, total: int, text: str) -> None:
        nonlocal before
        before, new = done, done - before
        course.work(new * samples, text)

    waiting = [Waiting(each.name, each.train.steps, each.word, partial(school.prepare, each)) for each in lessons]
    for ended in train_pack(school.generator, waiting, train, checkpoint, progress):
        lesson = named[ended.concept]
        if ended.trained:
            for step in lesson.train.keep_steps:  # one that was stopped before stays as it is
                write_word(files.word(lesson, step), ended.trained.kept.get(step, ended.trained.word))
            write_text(files.taken(lesson), f"{ended.seconds:.2f}\n")
            write_word(files.word(lesson), ended.trained.word)
        yield Learnt(lesson, ended.seconds, ended.error)


def _common(train: Train) -> str:
    """Names the pack that a training goes into."""
    return f"pack-{digest_value(train.model_dump(mode='json', include=set(COMMON)))[:16]}"
