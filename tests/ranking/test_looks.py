from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.candidates.small_workspace import add_concept, add_word, small_params
from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from tests.stages.one import generate_one, rank_one
from ti_pipeline.candidates.looks import read_looks, write_looks
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, read_table
from ti_pipeline.generators.generator import Generator
from ti_pipeline.sight.ranker import Ranker
from ti_pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return load_tiny(write_folder(tmp_path_factory.mktemp("generators") / "tiny"))


@pytest.fixture
def duck(tmp_path: Path, generator: Generator, miniature: Ranker) -> tuple[Workspace, Manifest]:
    workspace, manifest = add_concept(tmp_path, "duck-toy", "initializer: duck")
    add_word(workspace, "duck-toy", "<duck-toy>", initializer="duck")
    generate_one(workspace, generator, manifest, small_params(), clip=miniature)
    return workspace, manifest


def test_what_clip_saw_in_memory_ranks_as_the_files_do(duck, miniature: Ranker, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, manifest = duck
    folder = workspace.candidates("duck-toy")
    known = read_looks(workspace.looks("duck-toy"), miniature.digest)
    assert list(known) == [row["digest"] for row in read_table(folder / "candidates.parquet")]
    looked = []
    images = Ranker.images
    monkeypatch.setattr(Ranker, "images", lambda self, pictures: looked.append(len(pictures)) or images(self, pictures))
    rank_one(workspace, miniature, manifest, small_params())
    assert looked == [len(manifest.pictures)]  # the references only
    kept = digest_file(workspace.ranking("duck-toy"))
    workspace.looks("duck-toy").unlink()
    rank_one(workspace, miniature, manifest, small_params(), force=True)
    assert looked[1:] == [3, 3, len(manifest.pictures)]
    assert digest_file(workspace.ranking("duck-toy")) == kept


def test_pictures_from_before_a_kill_are_looked_at_too(duck, generator: Generator, miniature: Ranker) -> None:
    workspace, manifest = duck
    folder = workspace.candidates("duck-toy")
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / read_table(folder / "candidates.parquet")[1]["file"]).unlink()
    generate_one(workspace, generator, manifest, small_params(), clip=miniature)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_looks_do_not_stand_in_for_a_changed_picture_nor_for_another_clip(duck, miniature: Ranker) -> None:
    workspace, manifest = duck
    folder = workspace.candidates("duck-toy")
    assert read_looks(workspace.looks("duck-toy"), "another") == {}
    file = read_table(folder / "candidates.parquet")[0]["file"]
    (folder / file).write_bytes((folder / file).read_bytes() + b"more")
    with pytest.raises(ConceptError, match="is not the picture that candidates.parquet names"):
        rank_one(workspace, miniature, manifest, small_params())


def test_a_damaged_file_is_no_knowledge(tmp_path: Path) -> None:
    path = tmp_path / "looks.safetensors"
    write_looks(path, "c", ["a", "b"], np.eye(2, dtype=np.float32))
    assert read_looks(path, "c")["b"].tolist() == [0, 1]
    path.write_bytes(path.read_bytes()[:-5])
    assert read_looks(path, "c") == {}
    assert read_looks(tmp_path / "nowhere", "c") == {}
