"""Those who were at work leave how fast they were, for whoever asks later how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.candidates.small_workspace import add_concept, add_word, small_params
from tests.stages.one import generate_one, train_one
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Generator
from ti_pipeline.planning.speed import kept_speed
from ti_pipeline.workspace import Workspace

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_training_leaves_its_samples_a_second(generator: Generator, workspace: Workspace, validated: Make, settings: Settings) -> None:
    assert kept_speed("samples", generator, False) is None
    outcome = train_one(workspace, generator, validated("mug"), settings("train.gradient_accumulation=2"))
    speed = kept_speed("samples", generator, False)
    assert speed and speed >= 6 * 2 * 2 / outcome.seconds  # which also has the time that its files took
    assert kept_speed("samples", generator, True) is None and kept_speed("passes", generator, False) is None
    train_one(workspace, generator, validated("cup", hue=1), settings("generator.checkpointing=true"))
    assert kept_speed("samples", generator, True) and kept_speed("samples", generator, False) == speed


def test_one_that_goes_on_says_nothing_of_its_speed(
    generator: Generator, workspace: Workspace, validated: Make, settings: Settings
) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_one(workspace, generator, validated("mug"), settings(), stop)
    assert train_one(workspace, generator, validated("mug"), settings()).state == "done"
    assert kept_speed("samples", generator, False) is None


@pytest.mark.parametrize(("scale", "passes"), [(4.0, 2), (1.0, 1)])
def test_drawing_leaves_its_passes_a_second_but_not_those_of_less_than_a_batch(
    generator: Generator,
    tmp_path: Path,
    scale: float,
    passes: int,
) -> None:
    place, manifest = add_concept(tmp_path, "duck-toy")
    add_word(place, "duck-toy", "<duck-toy>", initializer="rubber duck")
    chosen = small_params(batch_size=6, guidance_scale=scale)
    began = time.monotonic()
    generate_one(place, generator, manifest, chosen)
    speed = kept_speed("passes", generator, False)
    assert speed and speed > 6 * chosen.generate.steps * passes / (time.monotonic() - began)
    next(place.candidates("duck-toy").glob("*.png")).unlink()
    assert generate_one(place, generator, manifest, chosen).state == "done"
    assert kept_speed("passes", generator, False) == speed


def test_where_it_cannot_be_kept_the_work_is_done_all_the_same(
    generator: Generator,
    workspace: Workspace,
    validated: Make,
    settings: Settings,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache.write_text("a file where the folder should be")
    assert train_one(workspace, generator, validated("mug"), settings()).state == "done"
    assert "cannot be kept (speed)" in caplog.text and kept_speed("samples", generator, False) is None
