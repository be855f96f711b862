from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

import pytest

from tests import hostile_models
from tests.generators.tiny_stable_diffusion import write_folder
from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.models import Models

SETTINGS = Path(__file__).parents[1] / "params.yaml"
CPU = ("generator.device=cpu", "generator.precision=float32")


def models(root: Path, *overrides: str) -> Models:
    return Models(params.load(SETTINGS, (*CPU, *overrides)), root)


def test_paths_of_models_are_relative_to_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "workspace"
    write_folder(root / "models" / "tiny")
    hostile_models.judge(root / "vit")  # in a workspace itself a name without any slash
    hostile_models.ranker(Path(str(resources.files("ti_pipeline.miniature"))), root / "models" / "clip")
    named = ("generator.model=models/tiny", "judge.model=vit", "ranker.model=./models/clip")
    monkeypatch.chdir(tmp_path)
    there = models(root, *named)
    assert (there.generator.name, there.judge.name, there.ranker.name) == ("tiny", "vit", "clip")
    before = there.source.digest, there.judge.digest, there.ranker.digest
    monkeypatch.chdir(root)
    shutil.move(root, tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    moved = models(tmp_path / "elsewhere", "generator.model=~/elsewhere/models/tiny", *named[1:])
    assert (moved.source.digest, moved.judge.digest, moved.ranker.digest) == before


@pytest.mark.parametrize(
    ("section", "model", "words"),
    [
        ("generator", "models/nothing/here", "generator.model: there is nothing at {root}/models/nothing/here"),
        ("generator", "one-word", "generator.model: there is nothing at one-word"),
        ("judge", "./nothing", "judge.model: there is no folder at {root}/nothing"),
        ("judge", "two words", "judge.model: there is no folder at two words"),
        ("ranker", "~/nothing", "ranker.model: there is no folder at {root}/nothing"),
        ("ranker", "one-word", "ranker.model: one-word is neither a folder nor a model that open_clip knows"),
    ],
)
def test_a_name_of_nothing_gets_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, model: str, words: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ParamsError) as error:
        _ = getattr(models(tmp_path, f"{section}.model={model}"), section)
    assert str(error.value).startswith(words.format(root=tmp_path))
