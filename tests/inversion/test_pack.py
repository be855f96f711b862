from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.framing import Framing
from ti_pipeline.inversion.latents import encode_pictures
from ti_pipeline.inversion.learner import Learner
from ti_pipeline.inversion.leaves import Learning, Leaves
from ti_pipeline.inversion.pack import losses_and_gradient
from ti_pipeline.inversion.setups.setup import Combination, Learnable, Step
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.words.word import ONLY


@pytest.fixture
def pack(generator: Generator, validated: Callable[..., Manifest]) -> tuple[list[Draws], list[Learning]]:
    """Two concepts of two vectors with four samples each."""
    draws = []
    for i, slug in enumerate(("mug", "cup")):
        manifest = validated(slug, hue=i)
        posteriors = encode_pictures(generator, [manifest.open(p) for p in manifest.pictures], Framing("crop", manifest.background))
        prompts = [["a photo of a <x>", "the <x> in red"]] * 3
        learner = Learner(Streams(0, slug), generator.timesteps, posteriors, ()).saying(generator, prompts, {"<x>": 2})
        draws.append(learner.draw(0, 4))
    rows = 0.1 * torch.randn(2, 2, 32, generator=torch.Generator().manual_seed(1))
    return draws, [Learning.begun(Learnable({ONLY: each}, {"<x>": 2})) for each in rows]


def stacked(everyone: list[Learning]) -> Leaves:
    return Leaves([Combination(())] * len(everyone), everyone, torch.device("cpu"))


def test_what_a_concept_learns_does_not_depend_on_its_company(generator: Generator, pack: tuple) -> None:
    draws, words = pack
    losses, gradient = losses_and_gradient(generator, stacked(words), draws, 1)
    for i in range(2):
        loss, alone = losses_and_gradient(generator, stacked(words[i : i + 1]), draws[i : i + 1], 1)
        torch.testing.assert_close(losses[i : i + 1], loss)
        torch.testing.assert_close(gradient[ONLY][i : i + 1], alone[ONLY], rtol=1e-3, atol=1e-7)
    assert not torch.allclose(gradient[ONLY][0], gradient[ONLY][1])


def test_accumulated_parts_are_the_whole_batch(generator: Generator, pack: tuple) -> None:
    draws, words = pack
    losses, gradient = losses_and_gradient(generator, stacked(words), draws, 1)
    for parts in (2, 4):
        each, accumulated = losses_and_gradient(generator, stacked(words), draws, parts)
        torch.testing.assert_close(each, losses)
        torch.testing.assert_close(accumulated[ONLY], gradient[ONLY], rtol=1e-3, atol=1e-7)


def test_the_loss_of_the_same_draws_falls(generator: Generator, pack: tuple) -> None:
    draws, words = pack
    leaves = stacked(words)
    first, gradient = losses_and_gradient(generator, leaves, draws, 1)
    for step in range(1, 16):
        leaves.update(gradient, Step(*(torch.full((2,), each).double() for each in (step, 0.02, 0.0))))
        losses, gradient = losses_and_gradient(generator, leaves, draws, 1)
    assert (losses < first).all()
