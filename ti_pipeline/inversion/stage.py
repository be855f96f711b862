"""The `train` stage for one concept: manifest and pictures in, embedding and training log out."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence

import pyarrow as pa
from PIL import Image

import ti_pipeline
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.embeddings.store import embedding_fingerprint, write_embedding
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, digest_value, table_metadata, write_table
from ti_pipeline.generators.load import Generator
from ti_pipeline.inversion.train import VERSION, Progress, train_concept
from ti_pipeline.params import Params
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

SCHEMA = pa.schema([
    pa.field("step", pa.int32(), nullable=False),  # from 1
    pa.field("loss", pa.float32(), nullable=False),  # mean squared error over the step's samples
    pa.field("norm", pa.float32(), nullable=False),  # of the longest of the word's vectors, after the step
    pa.field("gradient", pa.float32(), nullable=False),  # norm over all of the word's vectors
    pa.field("rate", pa.float32(), nullable=False),
])
ChooseInitializer = Callable[[Sequence[Image.Image]], str]


def training_fingerprint(generator_digest: str, manifest: Manifest, params: Params) -> str:
    """What an embedding depends on. Needs no loaded generator: `find_source(params.generator).digest` is enough.

    The device is left out, the precision is not; the ranker counts only where it chooses the initializer.
    """
    sections = params.section("seed", "train", *(() if manifest.initializer else ("ranker",)))
    sections["train"] = {key: value for key, value in sections["train"].items() if key != "checkpoint_every"}
    inputs = {"generator": generator_digest, "manifest": manifest.training_digest}
    return fingerprint("train", VERSION, inputs, sections | {"precision": params.generator.precision})


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a concept whose embedding and log both carry the fingerprint, else None."""
    path = workspace.embedding(concept)
    if embedding_fingerprint(path) != wanted or table_metadata(workspace.training(concept)).get("fingerprint") != wanted:
        return None
    return Outcome("train", concept, "up-to-date", path=str(path), digest=digest_file(path))


def train_one(workspace: Workspace, generator: Generator, manifest: Manifest, params: Params,
              choose_initializer: ChooseInitializer | None = None, progress: Progress | None = None, *, force: bool = False) -> Outcome:
    """Learn a concept's word unless it stands already; the embedding comes last, then the checkpoint goes.

    Raises ConceptError; nothing is written then but the checkpoint. `force` also starts over instead of going on.
    """
    began = time.monotonic()
    slug, path = manifest.slug, workspace.embedding(manifest.slug)
    wanted = training_fingerprint(generator.digest, manifest, params)
    if not force and (outcome := standing(workspace, slug, wanted)):
        return outcome
    checkpoint = workspace.checkpoint(slug)
    if force:
        checkpoint.unlink(missing_ok=True)
    initializer = manifest.initializer or _choose(manifest, choose_initializer)
    trained = train_concept(
        generator, manifest, params.train, params.seed, checkpoint=checkpoint, initializer=initializer, progress=progress
    )
    provenance = {
        "concept": slug, "kind": manifest.kind, "token": manifest.token,
        "initializer": initializer, "initializer_from": "concept.yaml" if manifest.initializer else "CLIP",
        "generator": generator.name, "generator_digest": generator.digest,
        "pictures": str(len(manifest.pictures)), "pictures_digest": digest_value([picture.digest for picture in manifest.pictures]),
        "picture_digests": json.dumps({picture.file: picture.digest for picture in manifest.pictures}, sort_keys=True, ensure_ascii=False),
        "params": json.dumps(params.section("seed", "train"), sort_keys=True), "precision": str(generator.dtype).removeprefix("torch."),
        "steps": str(trained.steps), "final_loss": f"{trained.final_loss:.6g}",
        "version": f"ti-pipeline {ti_pipeline.__version__}", "fingerprint": wanted,
    }
    temporary = path.with_name(f".{path.stem}-new{path.suffix}")
    try:
        write_embedding(temporary, manifest.token, trained.vectors, provenance)
        write_table(workspace.training(slug), trained.log, SCHEMA, {"fingerprint": wanted, "concept": slug})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    checkpoint.unlink(missing_ok=True)
    return Outcome("train", slug, "done", time.monotonic() - began, path=str(path), digest=digest_file(path))


def _choose(manifest: Manifest, choose: ChooseInitializer | None) -> str:
    if choose is None:
        raise ConceptError(manifest.slug, "there is no `initializer` in its concept.yaml, and no ranker was given to choose one. Set it.")
    return choose([manifest.open(picture) for picture in manifest.pictures])
