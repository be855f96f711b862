from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.inversion.test_train import Killed
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.job import Job, Waiting, prepare_job
from ti_pipeline.inversion.matching import Sight
from ti_pipeline.inversion.setups.setup import Subject
from ti_pipeline.inversion.state import Trained
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.inversion.train import train_pack


@pytest.fixture(autouse=True)
def bits(one_thread: None) -> None:
    """Of every test here."""


@dataclass
class Mixed:
    """Concepts that are learnt each in its own way."""

    generator: Generator
    manifests: dict[str, Manifest]
    trains: dict[str, params.Train]
    checkpoint: Path
    sight: Callable[[], Sight] | None = None
    trained: dict[str, Trained] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)

    def job(self, slug: str) -> Job:
        train, arithmetic = self.trains[slug], self.generator.arithmetic
        return prepare_job(Subject(self.generator, self.manifests[slug], train, "mug", Streams(0, slug), self.sight), arithmetic)

    def run(self, only: tuple[str, ...] = (), pack: int = 3, stop_at: int | None = None) -> dict[str, Trained]:
        """Train those named, or all; `stop_at` is the call of `progress` that is the last."""
        slugs, calls = only or tuple(self.trains), 0

        def progress(done: int, total: int, text: str) -> None:
            nonlocal calls
            calls += 1
            if calls == stop_at:
                raise Killed

        waiting = [Waiting(slug, self.trains[slug].steps, slug, lambda slug=slug: self.job(slug)) for slug in slugs]
        train = self.trains[slugs[0]].model_copy(update={"pack": pack})
        for ended in train_pack(self.generator, waiting, train, self.checkpoint, progress):
            if ended.trained:
                self.trained[ended.concept] = ended.trained
            else:
                self.lost[ended.concept] = str(ended.error)
        return self.trained


@pytest.fixture
def mix(
    generator: Generator, validated: Callable[..., Manifest], settings: Callable[..., params.Params], tmp_path: Path
) -> Callable[..., Mixed]:
    """Makes concepts by what their `train` sections change, {slug: changes}."""

    def make(**changes: tuple[str, ...]) -> Mixed:
        manifests = {slug: validated(slug, hue=i) for i, slug in enumerate(changes)}
        trains = {slug: settings(*(f"train.{each}" for each in own)).train for slug, own in changes.items()}
        return Mixed(generator, manifests, trains, tmp_path / "pack.safetensors")

    return make
