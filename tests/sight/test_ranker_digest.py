from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.sight.conftest import write_clip
from ti_pipeline.params import Ranker as Settings
from ti_pipeline.sight.ranker import Ranker, load_ranker
from ti_pipeline.sight.ranker_digest import known_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def settings(model: str | Path, pretrained: Path | None = None) -> Settings:
    return Settings(model=str(model), pretrained=str(pretrained) if pretrained else None, likeness="clip", dino=None)


def load(chosen: Settings) -> Ranker:
    return load_ranker(chosen, "cpu")


def test_once_loaded_it_is_known_for_as_long_as_no_file_changes(folder: Path, tmp_path: Path) -> None:
    chosen = settings(shutil.copytree(folder, tmp_path / "clip"))
    assert known_digest(chosen) is None
    assert load(chosen).digest == known_digest(chosen)
    (tmp_path / "clip" / "merges.txt").write_text("a b")
    assert known_digest(chosen) is None
    assert load(chosen).digest == known_digest(chosen)


def test_other_weights_of_the_same_size_and_time_are_not_taken_for_them(folder: Path, tmp_path: Path) -> None:
    chosen = settings(shutil.copytree(folder, tmp_path / "clip"))
    weights = tmp_path / "clip" / "open_clip_model.safetensors"
    before, state = load(chosen).digest, weights.stat()
    content = bytearray(weights.read_bytes())
    content[-2] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert weights.stat().st_size == state.st_size and weights.stat().st_mtime_ns == state.st_mtime_ns
    assert known_digest(chosen) is None and load(chosen).digest != before


def test_what_changes_while_it_is_loaded_is_not_known(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import open_clip

    chosen = settings(shutil.copytree(folder, tmp_path / "clip"))
    stock = open_clip.create_model

    def changed_meanwhile(*args: object, **named: object) -> object:
        model = stock(*args, **named)
        os.utime(tmp_path / "clip" / "open_clip_model.safetensors")
        return model

    monkeypatch.setattr(open_clip, "create_model", changed_meanwhile)
    load(chosen)
    assert known_digest(chosen) is None


def test_a_file_for_an_architecture_of_open_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_clip import factory

    from tests.sight.conftest import MODEL

    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, "small": MODEL, "another": MODEL})
    weights = write_clip(tmp_path / "clip") / "open_clip_model.safetensors"
    assert load(settings("small", weights)).digest == known_digest(settings("small", weights))
    assert known_digest(settings("another", weights)) is None  # whose name is in its digest


def test_weights_that_open_clip_finds_are_not_known() -> None:
    assert known_digest(Settings(model="ViT-B-32", pretrained="openai", likeness="clip", dino=None)) is None


def test_a_cache_that_cannot_be_written_or_read_costs_no_run(cache: Path, folder: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert load(settings(folder)).digest and known_digest(settings(folder)) is None
