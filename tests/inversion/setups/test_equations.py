"""Each setup by itself against its equation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from tests.inversion.setups.conftest import Mixed
from tests.inversion.setups.equation import invert
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.words.word import ONLY


def draws_of(mixed: Mixed, slug: str, length: Callable[[int], int]) -> list[Draws]:
    job, train, token = mixed.job(slug), mixed.trains[slug], mixed.manifests[slug].token
    lengths = {n: {**job.one.lengths, token: n} for n in {length(step) for step in range(train.steps)}}
    said = {n: job.learner.saying(mixed.generator, job.one.prompts, of) for n, of in lengths.items()}
    return [said[length(step)].draw(step, train.batch_size) for step in range(train.steps)]


def assert_same(found: torch.Tensor, expected: torch.Tensor, start: torch.Tensor, moved: float = 0.1) -> None:
    assert found.shape == expected.shape
    assert F.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.99999
    assert F.cosine_similarity((found - start).flatten(), (expected - start).flatten(), dim=0) > 0.99999
    assert (found - start).norm() > moved * start.norm()


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


def test_direction(mix: Callable[..., Mixed], folder: Path) -> None:
    """The equations of arXiv 2512.13672, a row at a time."""
    rate, kappa, beta = 0.05, 0.02, 0.99
    own = (
        "setup=direction",
        f"setups.direction.kappa={kappa}",
        "setups.direction.norm=1.5",
        "vectors=2",
        "steps=12",
        "schedule=constant",
        f"learning_rate={rate}",
    )
    mixed = mix(mug=own)
    table = mixed.generator.encoders[ONLY].table
    length = 1.5 * torch.stack([row.norm() for row in table]).mean()
    rows = mixed.job("mug").subject.rows(2)[ONLY]
    start, draws = length * rows / rows.norm(dim=1, keepdim=True), draws_of(mixed, "mug", lambda step: 2)
    assert torch.allclose(mixed.job("mug").one.leaves[ONLY], start, atol=1e-6)
    squares = [0.0, 0.0]

    def move(step: int, rows: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        moved = []
        for i, (row, of_row) in enumerate(zip(rows, gradient, strict=True)):
            v, mu = row / length, start[i] / length
            h = length * of_row - kappa * mu
            h = h - torch.dot(h, v) * v
            squares[i] = beta * squares[i] + (1 - beta) * h.norm().item() ** 2
            v = v - rate * h / (squares[i] / (1 - beta**step)) ** 0.5
            moved.append(length * v / v.norm())
        return torch.stack(moved)

    found = mixed.run()["mug"].word.rows[ONLY]
    assert_same(found, invert(folder, start, draws, mixed.trains["mug"], move=move), start)
    torch.testing.assert_close(found.norm(dim=1), length.expand(2))
    held = mix(mug=(*own, "setups.direction.kappa=50")).run()["mug"].word.rows[ONLY]
    assert (held - start).norm() < 0.5 * (found - start).norm()


def test_per_image(mix: Callable[..., Mixed], folder: Path) -> None:
    mixed = mix(mug=("setup=per_image", "vectors=2", "steps=12", "schedule=constant"))
    job, draws = mixed.job("mug"), draws_of(mixed, "mug", lambda step: 2)
    pictures, own = job.one.leaves[f"{ONLY}.images"], job.one.leaves[ONLY]
    assert len(pictures) == 3 and torch.equal(own, job.subject.rows(2)[ONLY])
    words = len(mixed.generator.encoders[ONLY].table)
    for i, said in enumerate(job.learner.ids):  # S* is behind the three, and the last word is that of the picture
        assert all([k for k in ids.tolist() if k >= words] == [words + 3, words + 4, words + i] for ids in said[ONLY])
    assert job.one.prompts[1][0] == "a photo of a <mug> with <mug:1>"
    expected = invert(folder, torch.cat([pictures, own]), draws, mixed.trains["mug"])[3:]
    found = mixed.run()["mug"].word.rows
    assert found.keys() == {ONLY}
    assert_same(found[ONLY], expected, own)


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_encoder_start(mix: Callable[..., Mixed], folder: Path, weight: float) -> None:
    own = ("setup=encoder_start", f"setups.encoder_start.weight={weight}", "learning_rate=0.3")
    mixed = mix(mug=(*own, "vectors=2", "steps=12", "schedule=constant"))
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    ids = tokenizer(["a photo of a mug"], padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    pieces = tokenizer("mug", add_special_tokens=False).input_ids
    with torch.no_grad():
        said = encoder(ids).last_hidden_state[0]
    first = 1 + len(tokenizer("a photo of a", add_special_tokens=False).input_ids)
    assert ids[0, first : first + len(pieces)].tolist() == pieces
    start, draws = mixed.job("mug").one.leaves[ONLY], draws_of(mixed, "mug", lambda step: 2)
    torch.testing.assert_close(start[0], said[first : first + len(pieces)].mean(dim=0))
    assert 0 < (start[1] - start[0]).norm() < 0.1 * start[0].norm()  # the word again, with a little noise
    expected = invert(folder, start, draws, mixed.trains["mug"], lambda v: weight * (v - start).square().sum())
    assert_same(mixed.run()["mug"].word.rows[ONLY], expected, start, moved=0.01)
    free = invert(folder, start, draws, mixed.trains["mug"])
    assert bool((expected - start).norm() < 0.8 * (free - start).norm()) is (weight > 0)
