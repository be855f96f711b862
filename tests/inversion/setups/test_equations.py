"""Each setup by itself against its equation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from tests.inversion.setups.conftest import Mixed
from tests.inversion.setups.equation import invert
from ti_pipeline.inversion.learner import Draws
from ti_pipeline.words.word import ONLY


def draws_of(mixed: Mixed, slug: str, length: Callable[[int], int]) -> list[Draws]:
    job, train, token = mixed.job(slug), mixed.trains[slug], mixed.manifests[slug].token
    said = {n: job.learner.saying(mixed.generator, job.one.prompts, {token: n}) for n in {length(step) for step in range(train.steps)}}
    return [said[length(step)].draw(step, train.batch_size) for step in range(train.steps)]


def assert_same(found: torch.Tensor, expected: torch.Tensor, start: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99999
    assert F.cosine_similarity((found - start).flatten(), (expected - start).flatten(), dim=0) > 0.99999
    assert (found - start).norm() > 0.1 * start.norm()


def test_plain(mix: Callable[..., Mixed], folder: Path) -> None:
    mixed = mix(mug=("vectors=2", "steps=12", "schedule=constant"))
    start, draws = mixed.job("mug").one.leaves[ONLY], draws_of(mixed, "mug", lambda step: 2)
    assert_same(mixed.run()["mug"].word.rows[ONLY], invert(folder, start, draws, mixed.trains["mug"]), start)


def test_regularised(mix: Callable[..., Mixed], folder: Path) -> None:
    weight = 0.5  # at which it decides where the word goes
    mixed = mix(mug=("setup=regularised", f"setups.regularised.weight={weight}", "vectors=2", "steps=12", "schedule=constant"))
    start, draws, train = mixed.job("mug").one.leaves[ONLY], draws_of(mixed, "mug", lambda step: 2), mixed.trains["mug"]
    expected = invert(folder, start, draws, train, lambda v: weight * sum((v[i] - start[i]).norm() for i in range(2)))
    found = mixed.run()["mug"].word.rows[ONLY]
    assert_same(found, expected, start)
    without = invert(folder, start, draws, train)
    assert (found - start).norm() < 0.8 * (without - start).norm()


def test_regularised_in_several_passes_is_the_same(mix: Callable[..., Mixed]) -> None:
    common = ("setup=regularised", "setups.regularised.weight=0.5", "steps=6")
    whole = mix(mug=(*common, "batch_size=4")).run()["mug"].word.rows[ONLY]
    parts = mix(mug=(*common, "batch_size=2", "gradient_accumulation=2")).run()["mug"].word.rows[ONLY]
    assert F.cosine_similarity(whole.flatten(), parts.flatten(), dim=0) > 0.99999


def test_progressive(mix: Callable[..., Mixed], folder: Path) -> None:
    mixed = mix(mug=("setup=progressive", "setups.progressive.grow_at=[4, 9]", "steps=14", "schedule=constant"))
    job, train = mixed.job("mug"), mixed.trains["mug"]
    start = job.subject.rows(3)
    assert [len(leaf) for leaf in job.one.leaves.values()] == [1] and train.longest == 3

    def length(step: int) -> int:
        return 1 + (step >= 4) + (step >= 9)

    expected = invert(folder, start[ONLY], draws_of(mixed, "mug", length), train, length=length)
    trained = mixed.run()["mug"]
    assert_same(trained.word.rows[ONLY], expected, start[ONLY])
    assert (trained.word.rows[ONLY] != start[ONLY]).any(dim=1).all() and len(trained.word) == 3
    assert [row["step"] for row in trained.log] == list(range(1, 15))
