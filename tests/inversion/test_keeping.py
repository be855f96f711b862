"""Words as they were on the way: which are kept, that they are the very bits of then, that they outlive a kill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.inversion.one_concept import train_concept
from tests.inversion.test_train import Killed, kill_at
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion import readings
from ti_pipeline.inversion.state import Trained
from ti_pipeline.words.word import ONLY

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]
KEEP = "train.keep_steps=[0, 2, 3, 5, 40]"


@pytest.fixture
def train(generator: Generator, validated: Make, settings: Settings, tmp_path: Path, one_thread: None) -> Callable[..., Trained]:
    def learn(*overrides: str, checkpoint: str = "unused", killed: int = 0) -> Trained:
        progress = kill_at(killed) if killed else None
        one, path = settings(*overrides).train, tmp_path / checkpoint
        return train_concept(generator, validated(), one, 0, checkpoint=path, initializer="mug", progress=progress)

    return learn


def kept(trained: Trained) -> dict[int, bytes]:
    return {step: word.rows[ONLY].numpy().tobytes() for step, word in trained.kept.items()}


def test_a_kept_word_is_the_word_of_a_training_of_so_many_steps(train: Callable[..., Trained]) -> None:
    trained = train(KEEP, "train.schedule=constant")
    assert list(trained.kept) == [0, 2, 3, 5, 6]
    for step in (2, 3, 5):
        assert kept(trained)[step] == kept(train(f"train.steps={step}", "train.schedule=constant"))[step]
    assert kept(trained)[0] != kept(trained)[2]
    assert kept(trained)[6] == trained.word.rows[ONLY].numpy().tobytes()


def test_keeping_changes_no_word(train: Callable[..., Trained], settings: Settings) -> None:
    without = train()
    assert list(without.kept) == [6]
    assert kept(train(KEEP))[6] == kept(without)[6]
    assert settings(KEEP).train.decisive() == settings().train.decisive()


def test_read_in_bulk_it_is_the_same(train: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch, generator: Generator) -> None:
    at_once = kept(train(KEEP))
    init = readings.Readings.__init__

    def lazy(self: readings.Readings, bounds: dict[str, float], device: torch.device) -> None:
        init(self, bounds, device)
        self.every = 25

    monkeypatch.setattr(readings.Readings, "__init__", lazy)
    assert kept(train(KEEP, "train.checkpoint_every=100")) == at_once


def test_they_outlive_a_kill(train: Callable[..., Trained]) -> None:
    whole = train(KEEP, "train.vectors=2")
    for step in (3, 5):
        with pytest.raises(Killed):
            train(KEEP, "train.vectors=2", checkpoint="half", killed=step)
    resumed = train(KEEP, "train.vectors=2", checkpoint="half")
    assert resumed.resumed_from == 4
    assert kept(resumed) == kept(whole)


def test_a_checkpoint_that_lacks_a_step_is_not_gone_on_from(train: Callable[..., Trained]) -> None:
    with pytest.raises(Killed):
        train("train.keep_steps=[2, 3]", checkpoint="half", killed=5)
    assert train("train.keep_steps=[1]", checkpoint="half").resumed_from == 0
    with pytest.raises(Killed):
        train("train.keep_steps=[2, 3]", checkpoint="fewer", killed=5)
    fewer = train("train.keep_steps=[3, 5]", checkpoint="fewer")
    assert (fewer.resumed_from, list(fewer.kept)) == (4, [3, 5, 6])


def test_a_growing_word_is_kept_at_its_length_then(train: Callable[..., Trained]) -> None:
    trained = train("train.setup=progressive", "train.setups.progressive.grow_at=[2, 4]", KEEP)
    assert {step: len(word) for step, word in trained.kept.items()} == {0: 1, 2: 1, 3: 2, 5: 3, 6: 3}


def test_stopped_early_the_steps_that_it_reached(train: Callable[..., Trained]) -> None:
    stopping = ("train.early_stopping=dvar", "train.evaluate_every=1", "train.stop_window=2", "train.stop_ratio=0.99")
    trained = train("train.steps=30", "train.keep_steps=[1, 2, 29]", *stopping)
    assert trained.steps < 29 and trained.why.startswith("dvar")
    assert list(trained.kept) == sorted({1, 2, trained.steps})
    alike = train("train.steps=30", f"train.keep_steps=[{trained.steps}]")
    assert kept(trained)[trained.steps] == kept(alike)[trained.steps]


def test_steps_that_do_not_rise_are_refused(settings: Settings) -> None:
    with pytest.raises(ParamsError, match=r"train.keep_steps: .*\[5, 5\] does not rise"):
        settings("train.keep_steps=[5, 5]")
