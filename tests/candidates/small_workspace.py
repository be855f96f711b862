"""A workspace with real photographs, validated, and with words that were never trained."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from tests.stages.one import validate_one
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.params import Params, load
from ti_pipeline.stages.collection import current
from ti_pipeline.stages.reasons import keep
from ti_pipeline.words.files import write_word
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import MANIFESTS, Outcome, Workspace

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "tests" / "data"
BRIEFS = {"object": ["a photo of a {token}", "a {token} on the moon"], "style": ["a cat in the style of {token}"]}


def small_params(**generate: object) -> Params:
    """The repository's own, with little to do."""
    params = load(ROOT / "params.yaml")
    small = {"briefs": BRIEFS, "candidates": 3, "steps": 2, "batch_size": 4, **generate}
    return params.model_copy(update={"generate": params.generate.model_copy(update=small)})


def add_concept(root: Path, slug: str, settings: str = "", photos: Path = PHOTOS) -> tuple[Workspace, Manifest]:
    """Copy the photographs, write `concept.yaml`, validate."""
    workspace = Workspace.at(root, "concepts")
    folder = Path(shutil.copytree(photos / slug, workspace.concepts / slug))
    if settings:
        (folder / "concept.yaml").write_text(settings, encoding="utf-8")
    assert validate_one(workspace, load_concept(folder), small_params()).ok
    return workspace, read_manifest(workspace, slug)


def add_word(workspace: Workspace, slug: str, token: str, seed: int = 0, width: int = 32, **provenance: str) -> None:
    """A word of two random vectors, as long as ordinary ones; of a concept that is held back where it has no manifest."""
    if slug not in current(workspace):
        keep(workspace, MANIFESTS, Outcome("validate", slug, "quarantined", reason="no pictures in the folder"))
    vectors = 0.02 * torch.randn(2, width, generator=torch.Generator().manual_seed(seed))
    write_word(workspace.embedding(slug), Word(token, {ONLY: vectors}, provenance=provenance))
