"""A word goes out to each tool, comes into another workspace, and is the same to the last bit: its vectors, and what it draws."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.candidates.small_workspace import add_concept
from tests.hub_server import hub_server, use
from tests.stages.quick import quick, run
from tests.words.test_export import USED_BY, exported
from ti_pipeline import cli
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import atomic
from ti_pipeline.generators.generator import Generator
from ti_pipeline.models import Models
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.words.export import Export, export_of, write_export
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.incoming import bring_in, located, words_at
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
    bring_in(there, generator, word, "my-duck", located(str(source)))
    assert run(there, PARAMS, "validate", "train")["train"]["my-duck"].state == "done"
    ours, theirs = read_word(here.embedding("duck-toy")), read_word(there.embedding("my-duck"))
    assert torch.equal(ours.rows[ONLY], theirs.rows[ONLY]) and theirs.class_words == "toy"
    assert read_manifest(there, "my-duck").owner == "Ann"
    assert np.array_equal(picture(there, "my-duck", generator), drawn)


def test_it_comes_from_the_hub_by_its_name(
    leaving: tuple[Workspace, Export, np.ndarray], generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, through the real client; what is not there is said."""
    _, export, drawn = leaving
    there = Workspace.at(tmp_path / "there", "concepts")
    there.root.mkdir()
    (there.root / "params.yaml").write_text(yaml.safe_dump(PARAMS.model_dump(mode="json", by_alias=True)))
    files = {name.removeprefix(f"{export.name}/"): content for name, content in export.files(TOOLS["sd-concepts"]).items()}

    def call(name: str) -> int:
        monkeypatch.setattr(sys, "argv", ["ti-pipeline", "import", name, "--as", "my-duck", "--workspace", str(there.root)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0

    with hub_server() as hub:
        use(hub, monkeypatch, str(tmp_path / "cache"))
        hub.repositories["team/duck"] = {**files, "notes.exe": b"never asked for", "concept_images/0.webp": picture_bytes()}
        assert call("team/duck") == 0 and hub.asked == []
        with pytest.raises(ParamsError, match="team/goose: .* no such repository on the hub. .* `hf auth login`"):
            located("team/goose")
    with pytest.raises(ParamsError, match="team/goose: could not be downloaded .*Download it elsewhere, and give the folder"):
        located("team/goose")
    assert [path.name for path in sorted((there.concepts / "my-duck").iterdir())] == ["0.webp", "concept.yaml", "word.safetensors"]
    assert not list((tmp_path / "cache").rglob("notes.exe"))
    assert run(there, PARAMS, "validate", "train")["train"]["my-duck"].state == "done"
    assert read_word(there.embedding("my-duck")).provenance["imported_from"] == "team/duck"
    assert np.array_equal(picture(there, "my-duck", generator), drawn)


def picture_bytes() -> bytes:
    Image.effect_noise((128, 128), 60).convert("RGB").save(packed := io.BytesIO(), format="WEBP", lossless=True)
    return packed.getvalue()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(("model", "tool"), [(model, tool) for model, tools in USED_BY.items() for tool in tools])
def test_the_vectors_of_every_model_come_back(model: str, tool: str, count: int, tmp_path: Path) -> None:
    export = exported(model, count)
    write_export(export, TOOLS[tool], tmp_path)
    (word,) = words_at(tmp_path / ("ti-fox" if TOOLS[tool].repository else export.file))
    assert word.name == "<fox>" and word.rows.keys() == export.rows.keys()
    assert all(torch.equal(rows, torch.from_numpy(export.rows[encoder])) for encoder, rows in word.rows.items())
