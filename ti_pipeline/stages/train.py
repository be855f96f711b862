"""The stage `train`: manifests and pictures to words and their training logs, many concepts in one pass."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

import ti_pipeline
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.files import digest_file, digest_value, table_metadata, write_table
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import is_there
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.stages.turns import turn
from ti_pipeline.workspace import CHECKPOINTS, CONCEPTS, EMBEDDINGS, MANIFESTS, Outcome, Workspace, fingerprint

if TYPE_CHECKING:
    from ti_pipeline.inversion.checkpoint import Saved
    from ti_pipeline.inversion.job import Job
    from ti_pipeline.inversion.state import Trained

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


def training_fingerprint(generator: str, ranker: str, manifest: Manifest, params: Params) -> str:
    """What a word depends on, by the digests of the models: nothing need be loaded.

    The device is left out, the precision is not; the ranker counts only where it chooses the initializer or the setup
    looks, and is empty elsewhere.
    """
    from ti_pipeline.inversion.job import VERSION
    from ti_pipeline.inversion.settings import settings_for

    inputs = {"generator": generator, "manifest": manifest.training_digest} | ({"ranker": ranker} if ranker else {})
    sections = params.section("seed") | {"train": settings_for(manifest, params.train).decisive()}
    return fingerprint("train", VERSION, inputs, sections | {"precision": params.generator.precision})


def _begin(run: Run) -> None:
    """Raises ParamsError for a generator that the setup is nothing for, before it is loaded."""
    run.params.train.chosen.check_generator(run.models.source)


def _plan(run: Run, slug: str) -> Plan:
    manifest = read_manifest(run.workspace, slug)
    looks = not manifest.initializer or run.params.train.chosen.looks
    ranker = run.models.ranker.digest if looks else ""
    wanted = training_fingerprint(run.models.source.digest, ranker, manifest, run.params)
    return Plan(slug, wanted, standing(run.workspace, slug, wanted), manifest, unfinished=slug in run.once(half_done))


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a concept whose embedding and log both carry the fingerprint, else None."""
    from ti_pipeline.words.files import word_fingerprint

    path = workspace.embedding(concept)
    if word_fingerprint(path) != wanted or table_metadata(workspace.training(concept)).get("fingerprint") != wanted:
        return None
    return Outcome("train", concept, "up-to-date", path=str(path), digest=digest_file(path))


def half_done(run: Run) -> set[str]:
    """Those of the run that the checkpoint of their common training holds."""
    from ti_pipeline.inversion.checkpoint import read_checkpoint

    saved = read_checkpoint(checkpoint_of(run.workspace, run.chosen))
    return {each.concept for each in (*saved.seats, *saved.parked)} & set(run.chosen) if saved else set()


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    """Each word is written as soon as it is learnt, the embedding last; the run's next call goes on from this one's checkpoint."""
    from ti_pipeline.inversion.job import Waiting, prepare_job
    from ti_pipeline.inversion.settings import settings_for
    from ti_pipeline.inversion.train import train_pack

    generator, checkpoint = run.models.generator, checkpoint_of(run.workspace, run.chosen)
    arithmetic = generator.arithmetic
    if run.force:
        checkpoint.unlink(missing_ok=True)
    others = {} if run.force else _others(checkpoint, {plan.concept for plan in plans})

    def prepare(manifest: Manifest) -> Job:
        initializer = manifest.initializer or run.models.choose_initializer([manifest.open(picture) for picture in manifest.pictures])
        train = settings_for(manifest, run.params.train)
        return prepare_job(generator, manifest, train, run.params.seed, initializer, arithmetic, lambda: run.models.ranker)

    steps = {plan.concept: settings_for(plan.order, run.params.train).steps for plan in plans}
    adopted = {saved.concept: saved for each in others.values() for saved in each}
    waiting = [
        Waiting(plan.concept, steps[plan.concept], plan.fingerprint, partial(prepare, plan.order), adopted.get(plan.concept))
        for plan in plans
    ]
    planned = {plan.concept: plan for plan in plans}
    for ended in train_pack(generator, waiting, run.params.train, checkpoint, run.report):
        if ended.error:
            yield Lost(ended.concept, ended.error, ended.seconds)
        elif ended.job and ended.trained:
            path = _write(run, planned[ended.concept], ended.job, ended.trained)
            yield Outcome("train", ended.concept, "done", ended.seconds, path=str(path), digest=digest_file(path))
    for path in (checkpoint, *others):
        path.unlink(missing_ok=True)


def _write(run: Run, plan: Plan, job: Job, trained: Trained) -> Path:
    from ti_pipeline.words.files import write_word

    slug, path, generator, manifest = plan.concept, run.workspace.embedding(plan.concept), run.models.generator, plan.order
    provenance = {
        "concept": slug,
        "kind": manifest.kind,
        "token": manifest.token,
        "initializer": trained.word.class_words,
        "initializer_from": "concept.yaml" if manifest.initializer else "CLIP",
        "generator": generator.name,
        "generator_digest": generator.digest,
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
        "fingerprint": plan.fingerprint,
    }
    temporary = path.with_name(f".{path.stem}-new{path.suffix}")
    try:
        write_word(temporary, replace(trained.word, provenance=provenance))
        write_table(run.workspace.training(slug), trained.log, SCHEMA, {"fingerprint": plan.fingerprint, "concept": slug})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


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
    """Checkpoints of which nobody is current: no training will ever take them up."""
    from ti_pipeline.inversion.checkpoint import concepts_in

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
    sections=("seed", "train"),
    models=("generator", "ranker"),
    hours=12,
    begin=_begin,
    plan=_plan,
    work=_work,
    together=True,
    scratch=CHECKPOINTS,
    holds=lambda run: [checkpoint_of(run.workspace, run.chosen).stem],
    withdraw=_withdraw,
)
