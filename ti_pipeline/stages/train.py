"""The stage `train`: manifests and pictures to words and their training logs, many concepts in one pass."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import ti_pipeline
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.concepts.texts import PLACE
from ti_pipeline.errors import ConceptError, ParamsError, out_of_memory
from ti_pipeline.files import digest_file, digest_value, write_table
from ti_pipeline.params import Train
from ti_pipeline.stages.collection import is_there
from ti_pipeline.stages.learnt import Learnt, Wanted, film_of, finish, keep, read_learnt, standing, wanted_of
from ti_pipeline.stages.sizes import check_size
from ti_pipeline.stages.stage import Lost, Plan, Progress, Run, Stage
from ti_pipeline.stages.starts import rounds, said_of, start_fingerprint, started
from ti_pipeline.stages.turns import turn
from ti_pipeline.workspace import CHECKPOINTS, CONCEPTS, EMBEDDINGS, MANIFESTS, PREVIEWS, Outcome, Workspace

if TYPE_CHECKING:
    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.inversion.checkpoint import Saved
    from ti_pipeline.inversion.job import Job
    from ti_pipeline.inversion.state import Trained
    from ti_pipeline.inversion.train import Reached

log = logging.getLogger(__name__)
SCHEMA = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),  # from 1
        pa.field("loss", pa.float32(), nullable=False),  # mean squared error over the step's samples
        pa.field("norm", pa.float32(), nullable=False),  # of the longest of the word's vectors, after the step
        pa.field("gradient", pa.float32(), nullable=False),  # norm over all of the word's vectors
        pa.field("rate", pa.float32(), nullable=False),
        pa.field("evaluation", pa.float32()),  # loss on the concept's fixed batch, where it was looked at
    ]
)


@dataclass(frozen=True)
class Order:
    """What is to be learnt, and what it is to stand under."""

    manifest: Manifest
    wanted: Wanted
    start: str = ""  # what the word stands under that it goes on from
    given: bool = False  # its word was learnt elsewhere


def _check(run: Run) -> None:
    """Raises ParamsError for a generator that the setup or the objective is nothing for, before it is loaded; and for a size of candidates
    that it does not draw, which `dvc repro`, stage by stage, would meet when the words are paid for."""
    from ti_pipeline.inversion.objective import check_learning

    check_learning(run.params.train, run.models.source)
    run.once(check_size)


def _plan(run: Run, slug: str) -> Plan:
    manifest = read_manifest(run.workspace, slug)
    if manifest.word and not (run.force and manifest.pictures):
        return _plan_given(run, manifest)
    start = start_fingerprint(run, manifest)
    wanted = wanted_of(run, manifest, start)
    stands = standing(run.workspace, slug, wanted)
    return Plan(slug, wanted.word, stands, Order(manifest, wanted, start), unfinished=slug in run.once(half_done))


def _plan_given(run: Run, manifest: Manifest) -> Plan:
    """Of a word that was learnt elsewhere: it is taken over, unless `--force` has had another learnt from the pictures."""
    from ti_pipeline.stages.given import given_wanted, standing_given

    slug, wanted = manifest.slug, given_wanted(manifest)
    stands = standing_given(run.workspace, slug, wanted)
    if not stands and manifest.pictures:
        stands = standing(run.workspace, slug, wanted_of(run, manifest, start_fingerprint(run, manifest)))
    return Plan(slug, wanted.word, stands, Order(manifest, wanted, given=True))


def half_done(run: Run) -> set[str]:
    """Those of the run that the checkpoint of their common training holds."""
    from ti_pipeline.inversion.checkpoint import read_checkpoint

    saved = read_checkpoint(checkpoint_of(run.workspace, run.chosen))
    return {each.concept for each in (*saved.seats, *saved.parked)} & set(run.chosen) if saved else set()


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    """Each word is written as soon as it is learnt, the embedding last; the run's next call goes on from this one's checkpoint.

    A word that goes on from another of this call is learnt after all that do not.
    """
    for plan in (plan for plan in plans if plan.order.given):
        yield _taken_over(run, plan)
    each = [*rounds(run, [plan for plan in plans if not plan.order.given])]
    for number, some in enumerate(each):
        yield from _learn(run if len(each) == 1 else replace(run, report=_part(run.report, number, len(each))), some)


def _part(report: Progress, number: int, count: int) -> Progress:
    """The progress of one round as a part of the stage's."""
    return lambda done, total, text: report(number * total + done, count * total, text)


def _learn(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    """Words that do not go on from each other, in one pass."""
    from ti_pipeline.inversion.job import Waiting, prepare_job
    from ti_pipeline.inversion.setups.setup import Subject
    from ti_pipeline.inversion.streams import Streams
    from ti_pipeline.inversion.train import train_pack
    from ti_pipeline.planning.speed import keep_speed

    checkpoint = checkpoint_of(run.workspace, run.chosen)
    if run.force:
        checkpoint.unlink(missing_ok=True)
    learnt = {} if run.force else _learnt(run, plans)
    for plan in (plan for plan in plans if plan.concept in learnt):
        yield _finished(run, plan, learnt[plan.concept], 0.0)
    planned = {plan.concept: plan for plan in plans if plan.concept not in learnt}
    others = {} if run.force else _others(checkpoint, set(planned))
    if planned:
        generator = run.models.generator
        arithmetic = generator.arithmetic

        def prepare(order: Order) -> Job:
            manifest, start = started(run, order.manifest, generator, order.start)
            initializer = manifest.initializer or (start.class_words if start else "")
            initializer = initializer or run.models.choose_initializer([manifest.open(picture) for picture in manifest.pictures])
            train, streams = run.params.train.for_concept(manifest), Streams(run.params.seed, manifest.slug)
            job = prepare_job(Subject(generator, manifest, train, initializer, streams, lambda: run.models.ranker, start), arithmetic)
            _check_drawn(generator, manifest, train)
            return job

        steps = {slug: run.params.train.for_concept(plan.order.manifest).steps for slug, plan in planned.items()}
        adopted = {saved.concept: saved for each in others.values() for saved in each}
        once, per_step = checkpoint.exists(), run.params.train.batch_size * run.params.train.gradient_accumulation
        waiting = [
            Waiting(slug, steps[slug], plan.fingerprint, partial(prepare, plan.order), adopted.get(slug)) for slug, plan in planned.items()
        ]
        taken, samples = 0.0, 0
        for ended in train_pack(generator, waiting, run.params.train, checkpoint, run.report, _watcher(run, planned)):
            if ended.trained and ended.concept not in adopted and not once:
                taken, samples = taken + ended.seconds, samples + ended.trained.steps * per_step
            if ended.error:
                yield Lost(ended.concept, ended.error, ended.seconds)
            elif ended.job and ended.trained:
                plan = planned[ended.concept]
                yield _finished(run, plan, _write(run, plan, ended.job, ended.trained), ended.seconds)
        if samples:
            keep_speed("samples", generator, run.params.generator.checkpointing, samples / taken)
    for path in (checkpoint, *others):
        path.unlink(missing_ok=True)


def _taken_over(run: Run, plan: Plan) -> Outcome | Lost:
    from ti_pipeline.stages.given import take_over

    began = time.monotonic()
    try:
        path = take_over(run.workspace, plan.order.manifest, plan.order.wanted)
    except ParamsError as error:
        return Lost(plan.concept, ConceptError(plan.concept, str(error)))
    return Outcome("train", plan.concept, "done", time.monotonic() - began, path=str(path), digest=digest_file(path))


def _learnt(run: Run, plans: Sequence[Plan]) -> dict[str, Learnt]:
    """Those that need no training: an earlier one has left all that is wanted.

    Who was in the company of a killed run goes on with it all the same, as long as one of that company has not come to its end.
    """
    found = {plan.concept: read_learnt(run.workspace, plan.concept, plan.order.wanted) for plan in plans}
    half = run.once(half_done)
    waited_for = any(slug in half and not learnt for slug, learnt in found.items())
    return {slug: learnt for slug, learnt in found.items() if learnt and not (waited_for and slug in half)}


def _check_drawn(generator: Generator, manifest: Manifest, train: Train) -> None:
    """Raise ConceptError, before a word is learnt, for a prompt of pictures to come that would not be read to its end."""
    from ti_pipeline.generators.placeholder import check_prompt
    from ti_pipeline.inversion.curve import prompts_of
    from ti_pipeline.inversion.previews import neutral_prompt

    prompts = [neutral_prompt(manifest, train)] if train.preview_every else []
    if train.compromise is not None:
        neutral, others = prompts_of(manifest, train)
        prompts += [neutral, *others]
    for prompt in prompts:
        check_prompt(generator, manifest.slug, prompt.replace(PLACE, manifest.token), {manifest.token: train.longest})


def _watcher(run: Run, planned: Mapping[str, Plan]) -> Callable[[Sequence[Reached]], None] | None:
    """Draws previews while concepts learn. What cannot be drawn now is drawn when its concept has ended, or that one fails."""
    if not run.params.train.preview_every:
        return None
    from ti_pipeline.inversion.previews import draw

    films = {slug: film_of(run, plan.order.manifest, plan.order.wanted) for slug, plan in planned.items()}

    def watch(reached: Sequence[Reached]) -> None:
        new = [each for each in reached if each.step in each.job.train.drawn_at]
        frames = [frame for each in new for frame in films[each.job.concept].missing({each.step: each.word})]
        try:
            draw(run.models.generator, frames, run.params.train)
        except (ParamsError, RuntimeError, MemoryError) as error:
            if not (isinstance(error, ParamsError) or out_of_memory(error)):
                raise
            log.warning("train: no preview of %s now: %s", ", ".join(frame.film.token for frame in frames), error)

    return watch


def _write(run: Run, plan: Plan, job: Job, trained: Trained) -> Learnt:
    """Log and kept words."""
    generator, manifest, wanted = run.models.generator, plan.order.manifest, plan.order.wanted
    provenance = {
        "concept": plan.concept,
        "kind": manifest.kind,
        "token": manifest.token,
        "initializer": trained.word.class_words,
        "initializer_from": "concept.yaml" if manifest.initializer else "CLIP",
        **said_of(job.subject.start, manifest),
        "generator": generator.name,
        "generator_digest": generator.digest,
        **_tables(run, generator),
        **({"density": generator.density} if generator.density else {}),
        "pictures": str(len(manifest.pictures)),
        "pictures_digest": digest_value([picture.digest for picture in manifest.pictures]),
        "picture_digests": json.dumps({picture.file: picture.digest for picture in manifest.pictures}, sort_keys=True, ensure_ascii=False),
        "params": json.dumps({"seed": run.params.seed, "train": job.train.decisive()}, sort_keys=True),
        **job.arithmetic,
        "steps": str(trained.steps),
        "chosen_step": str(trained.chosen),
        "stopped_by": trained.why,
        "final_loss": f"{trained.final_loss:.6g}",
        "version": f"ti-pipeline {ti_pipeline.__version__}",
        "fingerprint": wanted.trained,
    }
    learnt = Learnt({**trained.kept, trained.chosen: trained.word}, provenance)
    write_table(run.workspace.training(plan.concept), trained.log, SCHEMA, {"fingerprint": wanted.trained, "concept": plan.concept})
    keep(run.workspace, plan.concept, wanted, learnt)
    return learnt


def _tables(run: Run, generator: Generator) -> dict[str, str]:
    """Where the stock pipeline has the vocabularies, for a word that it does not load by itself, or not into all of them."""
    family = run.models.source.family
    if family.loads_words and generator.learning.keys() == generator.encoders.keys():
        return {}
    return {"tables": json.dumps({name: part if name in generator.encoders else None for name, part in family.tables.items()})}


def _finished(run: Run, plan: Plan, learnt: Learnt, seconds: float) -> Outcome | Lost:
    """The concept with all that follows from what was learnt; what goes wrong there is its own."""
    began = time.monotonic()
    try:
        path = finish(run, plan.order.manifest, plan.order.wanted, learnt)
    except ParamsError as error:
        return Lost(plan.concept, ConceptError(plan.concept, str(error)), seconds + time.monotonic() - began)
    except Exception as error:
        return Lost(plan.concept, error, seconds + time.monotonic() - began)
    return Outcome("train", plan.concept, "done", seconds + time.monotonic() - began, path=str(path), digest=digest_file(path))


def checkpoint_of(workspace: Workspace, concepts: Sequence[str]) -> Path:
    """Where the training of these concepts together is saved."""
    return workspace.checkpoint(concepts[0] if len(concepts) == 1 else f"pack-{digest_value(sorted(concepts))[:16]}")


def _others(own: Path, concepts: set[str]) -> dict[Path, list[Saved]]:
    """Checkpoints of other trainings that hold some of `concepts`: of a larger or a smaller part of the collection."""
    from ti_pipeline.inversion.checkpoint import read_checkpoint

    found = {}
    for path in sorted(own.parent.glob("*.safetensors")):
        if path != own and not path.name.startswith(".") and (saved := read_checkpoint(path)):
            here = [each for each in (*saved.seats, *saved.parked) if each.concept in concepts]
            if here:
                found[path] = here
    return found


def _withdraw(workspace: Workspace, known: Collection[str]) -> None:
    """Checkpoints of which nobody is current, which no training will ever take up, and previews of those who are not."""
    from ti_pipeline.inversion.checkpoint import concepts_in

    for folder in (workspace.artifacts / PREVIEWS).glob("*/"):
        if folder.name not in known and not is_there(workspace, folder.name):
            with turn(workspace, "train", [folder.name], wait=False) as mine:
                if mine:
                    shutil.rmtree(folder, ignore_errors=True)
    for path in (workspace.artifacts / CHECKPOINTS).glob("[!.]*.safetensors"):
        inside = concepts_in(path)
        if inside and not any(slug in known or is_there(workspace, slug) for slug in inside):
            with turn(workspace, "train", inside, wait=False) as mine:
                if mine:
                    path.unlink(missing_ok=True)


TRAIN = Stage(
    name="train",
    about="Learn each concept's word by textual inversion.",
    output=EMBEDDINGS,
    places=("{}",),
    last=Workspace.embedding,
    reads=(CONCEPTS, MANIFESTS),
    needs=(MANIFESTS,),
    # the size is for what this can tell of `generate`, and in no word
    sections=("seed", "train", "generate.width", "generate.height"),
    models=("generator", "ranker"),
    hours=12,
    check=_check,
    plan=_plan,
    work=_work,
    together=True,
    scratch=(CHECKPOINTS, PREVIEWS),
    holds=lambda run: [checkpoint_of(run.workspace, run.chosen).stem],
    withdraw=_withdraw,
)
