"""A word goes out to each tool, comes into another workspace, and is the same to the last bit: its vectors, and what it draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.candidates.small_workspace import add_concept
from tests.stages.quick import quick, run
from tests.words.test_export import USED_BY, exported
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.files import atomic
from ti_pipeline.generators.generator import Generator
from ti_pipeline.models import Models
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.words.export import Export, export_of, write_export
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.incoming import bring_in, words_at
from ti_pipeline.words.tools import TOOLS, Tool
from ti_pipeline.words.word import ONLY, Word
from ti_pipeline.workspace import Workspace

PARAMS = quick("concepts.folder=concepts")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Models(PARAMS, tmp_path_factory.mktemp("models")).generator


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory, generator: Generator) -> tuple[Workspace, Export, np.ndarray]:
    """A workspace with a word of two vectors, its export, and a picture of it."""
    workspace, manifest = add_concept(tmp_path_factory.mktemp("here"), "duck-toy", "token: <duck>\nkind: object\nowner: Ann\n")
    rows = 0.02 * torch.randn(2, generator.encoders[ONLY].table.shape[1], generator=torch.Generator().manual_seed(0))
    write_word(workspace.embedding("duck-toy"), Word("<duck>", {ONLY: rows}, provenance={"concept": "duck-toy", "initializer": "toy"}))
    return workspace, export_of(workspace, manifest, "ti-duck-toy"), picture(workspace, "duck-toy", generator)


def picture(workspace: Workspace, concept: str, generator: Generator) -> np.ndarray:
    word = read_word(workspace.embedding(concept))
    assert word.token == "<duck>"
    ((_, drawn),) = sample(generator, ["a <duck> on a blue background"], {"<duck>": word}, [7], Settings("ddim", 4, 5.0, "", 1))
    return np.asarray(drawn)


def written(export: Export, tool: Tool, folder: Path) -> Path:
    """What the tool reads, whether or not it has a model of this width; returns the file or folder to bring in."""
    for name, content in export.files(tool).items():
        with atomic(folder / name) as path:
            path.write_bytes(content)
    return folder / (export.name if tool.repository else export.file)


@pytest.mark.parametrize("tool", TOOLS)
def test_it_draws_the_same_picture_in_another_workspace(
    tool: str, leaving: tuple[Workspace, Export, np.ndarray], generator: Generator, tmp_path: Path
) -> None:
    here, export, drawn = leaving
    source = written(export, TOOLS[tool], tmp_path / "out")
    there = Workspace.at(tmp_path / "there", "concepts")
    (word,) = words_at(source)
    bring_in(there, generator, word, "my-duck", source)
    assert run(there, PARAMS, "validate", "train")["train"]["my-duck"].state == "done"
    ours, theirs = read_word(here.embedding("duck-toy")), read_word(there.embedding("my-duck"))
    assert torch.equal(ours.rows[ONLY], theirs.rows[ONLY]) and theirs.class_words == "toy"
    assert read_manifest(there, "my-duck").owner == "Ann"
    assert np.array_equal(picture(there, "my-duck", generator), drawn)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("model", "tool"), [(model, tool) for model, tools in USED_BY.items() for tool in tools])
def test_the_vectors_of_every_model_come_back(model: str, tool: str, count: int, tmp_path: Path) -> None:
    export = exported(model, count)
    write_export(export, TOOLS[tool], tmp_path)
    (word,) = words_at(tmp_path / ("ti-fox" if TOOLS[tool].repository else export.file))
    assert word.name == "<fox>" and word.rows.keys() == export.rows.keys()
    assert all(torch.equal(rows, torch.from_numpy(export.rows[encoder])) for encoder, rows in word.rows.items())
