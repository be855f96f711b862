"""The `train` stage: manifests and pictures in, embeddings and training logs out, many concepts in one pass."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
from PIL import Image

import ti_pipeline
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, digest_value, table_metadata, write_table
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.checkpoint import Saved, read_checkpoint
from ti_pipeline.inversion.job import VERSION, Job, Waiting, prepare_job
from ti_pipeline.inversion.settings import settings_for
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.train import Progress, train_pack
from ti_pipeline.params import Params
from ti_pipeline.words.files import word_fingerprint, write_word
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

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
ChooseInitializer = Callable[[Sequence[Image.Image]], str]


def training_fingerprint(generator_digest: str, manifest: Manifest, params: Params) -> str:
    """What an embedding depends on. Needs no loaded generator: `find_source(params.generator).digest` is enough.

    The device is left out, the precision is not; the ranker counts only where it chooses the initializer.
    """
    sections = params.section("seed", "train", *(() if manifest.initializer else ("ranker",)))
    sections["train"] = settings_for(manifest, params.train).decisive()
    inputs = {"generator": generator_digest, "manifest": manifest.training_digest}
    return fingerprint("train", VERSION, inputs, sections | {"precision": params.generator.precision})


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a concept whose embedding and log both carry the fingerprint, else None."""
    path = workspace.embedding(concept)
    if word_fingerprint(path) != wanted or table_metadata(workspace.training(concept)).get("fingerprint") != wanted:
        return None
    return Outcome("train", concept, "up-to-date", path=str(path), digest=digest_file(path))


def half_done(workspace: Workspace, concepts: Sequence[str]) -> set[str]:
    """Those of `concepts` that the checkpoint of their common training holds: they go on, standing or not.

    One that was written just before a kill is trained to its end again, so that the others have the company that they had.
    """
    saved = read_checkpoint(checkpoint_of(workspace, concepts))
    return {each.concept for each in (*saved.seats, *saved.parked)} & set(concepts) if saved else set()


def train_many(
    workspace: Workspace,
    generator: Generator,
    manifests: Sequence[Manifest],
    params: Params,
    choose_initializer: ChooseInitializer | None = None,
    progress: Progress | None = None,
    *,
    failed: Callable[[str, Exception], None],
    of: Sequence[str] | None = None,
    force: bool = False,
    spent: Counter[str] | None = None,
) -> dict[str, Outcome]:
    """Learn the words of all `manifests`; each is written as soon as it is learnt, the embedding last.

    `failed` is told which concept failed and why, and raises what no concept is to blame for; the others go on. `of` are the
    concepts of the whole collection that these are part of: its next call goes on from this one's checkpoint. `force` starts over.
    `spent` takes the seconds of each, those of a common pass in equal parts.
    """
    outcomes: dict[str, Outcome] = {}
    arithmetic = generator.arithmetic
    spent = Counter() if spent is None else spent
    known = {manifest.slug: manifest for manifest in manifests}
    wanted = {slug: training_fingerprint(generator.digest, manifest, params) for slug, manifest in known.items()}
    checkpoint = checkpoint_of(workspace, of or list(known))
    if force:
        checkpoint.unlink(missing_ok=True)
    others = {} if force else _others(checkpoint, set(known))

    def prepare(manifest: Manifest) -> Job:
        initializer = manifest.initializer or _choose(manifest, choose_initializer)
        return prepare_job(generator, manifest, trains[manifest.slug], params.seed, initializer, arithmetic)

    trains = {slug: settings_for(manifest, params.train) for slug, manifest in known.items()}
    adopted = {saved.concept: saved for each in others.values() for saved in each}
    waiting = [
        Waiting(slug, trains[slug].steps, wanted[slug], partial(prepare, manifest), adopted.get(slug)) for slug, manifest in known.items()
    ]
    for ended in train_pack(generator, waiting, params.train, checkpoint, progress):
        slug = ended.concept
        spent[slug] = ended.seconds
        if ended.error:
            failed(slug, ended.error)
            continue
        _write(workspace, generator, known[slug], params, ended.job, ended.trained, wanted[slug])
        path = workspace.embedding(slug)
        outcomes[slug] = Outcome("train", slug, "done", ended.seconds, path=str(path), digest=digest_file(path))
    for path in (checkpoint, *others):
        path.unlink(missing_ok=True)
    return outcomes


def train_one(
    workspace: Workspace,
    generator: Generator,
    manifest: Manifest,
    params: Params,
    choose_initializer: ChooseInitializer | None = None,
    progress: Progress | None = None,
    *,
    force: bool = False,
) -> Outcome:
    """Learn a concept's word unless it stands already.

    Raises ConceptError; nothing is written then but the checkpoint. `force` also starts over instead of going on.
    """
    wanted = training_fingerprint(generator.digest, manifest, params)
    if not force and (outcome := standing(workspace, manifest.slug, wanted)):
        return outcome

    def failed(concept: str, error: Exception) -> None:
        raise error

    made = train_many(workspace, generator, [manifest], params, choose_initializer, progress, failed=failed, force=force)
    return made[manifest.slug]


def _write(workspace: Workspace, generator: Generator, manifest: Manifest, params: Params, job: Job, trained: Trained, wanted: str) -> None:
    slug, path = manifest.slug, workspace.embedding(manifest.slug)
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
        "params": json.dumps({"seed": params.seed, "train": job.train.decisive()}, sort_keys=True),
        **job.arithmetic,
        "steps": str(trained.steps),
        "chosen_step": str(trained.chosen),
        "stopped_by": trained.why,
        "final_loss": f"{trained.final_loss:.6g}",
        "version": f"ti-pipeline {ti_pipeline.__version__}",
        "fingerprint": wanted,
    }
    temporary = path.with_name(f".{path.stem}-new{path.suffix}")
    try:
        write_word(temporary, replace(trained.word, provenance=provenance))
        write_table(workspace.training(slug), trained.log, SCHEMA, {"fingerprint": wanted, "concept": slug})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def checkpoint_of(workspace: Workspace, concepts: Sequence[str]) -> Path:
    """Where the training of these concepts together is saved."""
    return workspace.checkpoint(concepts[0] if len(concepts) == 1 else f"pack-{digest_value(sorted(concepts))[:16]}")


def _others(own: Path, concepts: set[str]) -> dict[Path, list[Saved]]:
    """Checkpoints of other trainings that hold some of `concepts`: of a larger or a smaller part of the collection."""
    found = {}
    for path in sorted(own.parent.glob("*.safetensors")):
        if path != own and not path.name.startswith(".") and (saved := read_checkpoint(path)):
            here = [each for each in (*saved.seats, *saved.parked) if each.concept in concepts]
            if here:
                found[path] = here
    return found


def _choose(manifest: Manifest, choose: ChooseInitializer | None) -> str:
    if choose is None:
        raise ConceptError(manifest.slug, "there is no `initializer` in its concept.yaml, and no ranker was given to choose one. Set it.")
    return choose([manifest.open(picture) for picture in manifest.pictures])
