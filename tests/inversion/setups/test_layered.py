"""A vector a layer, against a plain loop that sets what each layer of a stock network hears by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from torch.nn import functional as F

from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import load_tiny
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from tests.inversion.setups.by_layer import Stock
from tests.inversion.setups.conftest import Mixed
from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import weight_digests
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.setups.layered import Layered
from ti_pipeline.inversion.setups.setup import Group
from ti_pipeline.words.word import ONLY

Mix = Callable[..., Mixed]
LAYERS = 16


def invert(folder: Path, start: torch.Tensor, draws: list[Draws], train: params.Train, weight: float = 0) -> torch.Tensor:
    """argmin over v [layers, n, d], which all begin at `start` [n, d], of the loss + weight · Σ ‖v − start‖; at a constant rate."""
    stock, begun = Stock(folder), start.expand(LAYERS, -1, -1)
    v = begun.clone().requires_grad_()
    optimizer = torch.optim.AdamW([v], lr=train.learning_rate, weight_decay=train.weight_decay)
    scheduler = DDPMScheduler.from_config(stock.pipe.scheduler.config)
    for draw in draws:
        states = [stock.hear(draw.ids[ONLY], v[layer]) for layer in range(LAYERS)]
        predicted = stock.predict(scheduler.add_noise(draw.z0, draw.noise, draw.t), draw.t, states)
        penalty = weight * (v - begun).norm(dim=-1).sum() if weight else v.new_zeros(())
        optimizer.zero_grad()
        (F.mse_loss(predicted, draw.noise) + penalty).backward()
        optimizer.step()
    return v.detach()


def assert_same(found: torch.Tensor, expected: torch.Tensor, start: torch.Tensor) -> None:
    assert found.shape == expected.shape
    for ours, theirs in zip(found - start, expected - start, strict=True):
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.99999
        assert ours.norm() > 0.1 * start.norm()


def test_layered(mix: Mix, folder: Path) -> None:
    mixed = mix(mug=("setup=layered", "vectors=2", "steps=8", "schedule=constant"))
    job, train = mixed.job("mug"), mixed.trains["mug"]
    start, draws = job.subject.rows(2)[ONLY], [job.learner.draw(step, train.batch_size) for step in range(train.steps)]
    word = mixed.run()["mug"].word
    assert_same(word.layers[ONLY], invert(folder, start, draws, train), start)
    torch.testing.assert_close(word.rows[ONLY], word.layers[ONLY].mean(dim=0))
    assert len(word) == 2 and word.class_words == "mug"


def test_held_near_its_start_in_every_layer(mix: Mix, folder: Path) -> None:
    weight = 0.05
    mixed = mix(mug=("setup=layered+regularised", f"setups.regularised.weight={weight}", "steps=8", "schedule=constant"))
    job, train = mixed.job("mug"), mixed.trains["mug"]
    start, draws = job.subject.rows(1)[ONLY], [job.learner.draw(step, train.batch_size) for step in range(train.steps)]
    assert_same(mixed.run()["mug"].word.layers[ONLY], invert(folder, start, draws, train, weight), start)


def test_it_begins_as_the_plain_word_and_hears_what_it_is_used_with(mix: Mix) -> None:
    """At its start every layer hears the plain word; what training hears of any word is what drawing hears."""
    mixed = mix(mug=("setup=layered", "vectors=2"))
    job, generator = mixed.job("mug"), mixed.generator
    rows = job.subject.rows(2)
    begun = job.setup.word(job.subject, job.one.leaves)
    assert all(torch.equal(layer, rows[ONLY]) for layer in begun.layers[ONLY])
    leaves = {ONLY: torch.randn_like(job.one.leaves[ONLY])}
    word = job.setup.word(job.subject, leaves)
    drawn = encode(generator, ["a photo of a <mug>"], {"<mug>": word})
    ids = generator.tokenise(["a photo of a <mug>"], {"<mug>": 2})
    trained = job.setup.condition(generator, ids, Group({ONLY: leaves[ONLY][None]}, {}, 2, job.setup.condition))
    for ours, theirs in zip(generator.states(trained), generator.states(drawn), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_row_that_joins_joins_for_each_layer(mix: Mix) -> None:
    mixed = mix(mug=("setup=layered+progressive", "setups.progressive.grow_at=[2]", "steps=4"))
    start = mixed.job("mug").subject.rows(2)[ONLY]
    word = mixed.run()["mug"].word
    assert word.layers[ONLY].shape == (LAYERS, 2, 32)
    moved = (word.layers[ONLY] - start).norm(dim=-1)
    assert moved.gt(0).all() and moved[:, 1].unique().numel() == LAYERS


def test_directions_are_learnt_for_each_layer(mix: Mix) -> None:
    mixed = mix(mug=("setup=direction+layered", "vectors=2", "steps=4"))
    table = mixed.generator.encoders[ONLY].table
    layers = mixed.run()["mug"].word.layers[ONLY]
    torch.testing.assert_close(layers.norm(dim=-1), 2 * table.norm(dim=-1).mean().expand(LAYERS, 2), rtol=1e-4, atol=1e-5)
    assert len(layers[:, 0].unique(dim=0)) == LAYERS


def test_each_layer_is_held_near_where_another_setup_lets_it_start(mix: Mix) -> None:
    mixed = mix(mug=("setup=encoder_start+layered", "setups.encoder_start.weight=3", "steps=4"), cup=("setup=encoder_start",))
    job, start = mixed.job("mug"), mixed.job("cup").one.leaves[ONLY]
    assert torch.equal(job.one.leaves[ONLY], start.expand(LAYERS, -1)) and torch.equal(
        job.one.fixed[f"anchor.{ONLY}"], job.one.leaves[ONLY]
    )
    held = mixed.run(("mug",))["mug"].word.layers[ONLY]
    mixed.trains["mug"] = mix(mug=("setup=encoder_start+layered", "setups.encoder_start.weight=0", "steps=4")).trains["mug"]
    mixed.checkpoint = mixed.checkpoint.with_name("free")
    free = mixed.run(("mug",))["mug"].word.layers[ONLY]
    assert ((held - start).flatten(1).norm(dim=1) < (free - start).flatten(1).norm(dim=1)).all()


def test_a_word_for_each_picture_says_itself_what_is_heard(settings: Callable[..., params.Params]) -> None:
    with pytest.raises(ParamsError, match="layered and per_image do not go together"):
        settings("train.setup=per_image+layered")


@pytest.mark.parametrize("write", [write_xl, write_ldm])
def test_other_families_with_such_layers(mix: Mix, tmp_path: Path, write: Callable[[Path], Path]) -> None:
    more = ("steps=3", "setup=context+layered", "setups.context.attention=0.3")
    mixed = mix(mug=more, cup=("vectors=2", "steps=3"), jug=(*more, "vectors=2"))
    mixed.generator = load_tiny(write(tmp_path / "model"))
    before = weight_digests(mixed.generator)
    together = {slug: each.word for slug, each in mixed.run().items()}
    assert not mixed.lost and not together["cup"].layers
    for slug in ("mug", "jug"):
        mixed.checkpoint, mixed.trained = tmp_path / slug, {}
        alone, start = mixed.run((slug,))[slug].word.layers, mixed.job(slug).subject.rows(len(together[slug]))
        for encoder, layers in together[slug].layers.items():
            assert len(layers) == mixed.generator.layers
            moved, expected = ((each - start[encoder]).flatten() for each in (layers, alone[encoder]))
            assert F.cosine_similarity(moved, expected, dim=0) > 0.9999
    assert weight_digests(mixed.generator) == before


def test_a_generator_without_such_layers_is_refused(mix: Mix, tmp_path: Path) -> None:
    mixed = mix(mug=("setup=layered",), cup=("setup=context", "setups.context.attention=0.3"), jug=("setup=context", "steps=2"))
    mixed.generator = load_tiny(write_flux(tmp_path / "flux"), encoders=("clip_l", "t5"))
    for slug, setup in (("mug", "layered"), ("cup", "context")):
        with pytest.raises(ParamsError, match=f"train.setup: {setup} needs the cross-attention layers of a U-Net .* flux has none"):
            mixed.job(slug)
    assert set(mixed.run(("jug",))) == {"jug"}


@torch.no_grad()
def test_a_text_encoder_that_does_not_learn_reads_the_same_for_each_layer(tmp_path: Path) -> None:
    generator = load_tiny(write_xl(tmp_path / "xl"), encoders=("clip_l",))
    rows = torch.randn(1, generator.layers, 32)  # a vector for each layer
    ids = generator.tokenise(["a photo of a <mug>", "a <mug> on the moon"], {"<mug>": 1}, "cup")
    heard = Layered.condition(generator, ids, Group({"clip_l": rows}, {}, 1, Layered.condition))
    for i, states in enumerate(generator.states(heard)):
        expected = generator.condition(ids, {"clip_l": rows[0, i : i + 1]})
        torch.testing.assert_close(states, expected.parts["hidden"])
        torch.testing.assert_close(heard.parts["pooled"], expected.parts["pooled"])
