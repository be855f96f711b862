from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from tests.inversion.one_concept import train_concept
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.inversion.state import Trained
from ti_pipeline.words.word import ONLY

Make, Settings = Callable[..., Manifest], Callable[..., params.Params]


class Killed(Exception):
    """Stands for the end of the process between two steps."""


def bits(trained: Trained) -> bytes:
    return b"".join(rows.numpy().tobytes() for rows in trained.word.rows.values())


def kill_at(step: int) -> Callable[[int, int, str], None]:
    def progress(done: int, total: int, text: str) -> None:
        if done == step:
            raise Killed

    return progress


def test_every_weight_stays_as_it_was(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    before = weight_digests(generator)
    trained = train_concept(generator, validated(), settings().train, 0, checkpoint=tmp_path / "c", initializer="mug")
    assert weight_digests(generator) == before
    rows = trained.word.rows[ONLY]
    assert rows.shape == (1, 32) and not rows.requires_grad


def test_killed_in_the_middle_it_ends_in_the_same_bits(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    train = settings("train.vectors=2", "train.schedule=cosine", "train.warmup_steps=2", "train.flip=true").train
    manifest, checkpoint = validated(), tmp_path / "half.safetensors"
    whole = train_concept(generator, manifest, train, 3, checkpoint=tmp_path / "unused", initializer="red mug")
    with pytest.raises(Killed):
        train_concept(generator, manifest, train, 3, checkpoint=checkpoint, initializer="red mug", progress=kill_at(3))
    assert checkpoint.stat().st_size < 4096
    with pytest.raises(Killed):
        train_concept(generator, manifest, train, 3, checkpoint=checkpoint, initializer="red mug", progress=kill_at(5))
    resumed = train_concept(generator, manifest, train, 3, checkpoint=checkpoint, initializer="red mug")
    assert (whole.resumed_from, resumed.resumed_from) == (0, 4)
    assert bits(resumed) == bits(whole)
    assert resumed.log == whole.log and len(whole.log) == 6


def test_checkpoint_of_another_training_is_not_taken(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    manifest, checkpoint = validated(), tmp_path / "half.safetensors"
    with pytest.raises(Killed):
        train_concept(generator, manifest, settings().train, 0, checkpoint=checkpoint, initializer="mug", progress=kill_at(3))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:  # on another number of threads it would end in bits that neither has
        with pytest.raises(Killed):
            train_concept(generator, manifest, settings().train, 0, checkpoint=tmp_path / "more", initializer="mug", progress=kill_at(3))
    finally:
        torch.set_num_threads(threads)
    assert train_concept(generator, manifest, settings().train, 0, checkpoint=tmp_path / "more", initializer="mug").resumed_from == 0
    other = settings("train.learning_rate=0.02").train
    assert train_concept(generator, manifest, other, 0, checkpoint=checkpoint, initializer="mug").resumed_from == 0
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert train_concept(generator, manifest, other, 0, checkpoint=checkpoint, initializer="mug").resumed_from == 0


def test_seed_and_concept_alone_decide(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    manifest, train = validated(), settings("train.steps=2").train

    def vectors(seed: int = 0, slug: str = "mug") -> bytes:
        torch.manual_seed(torch.seed())  # a global generator must not matter
        named = replace(manifest, slug=slug)
        return bits(train_concept(generator, named, train, seed, checkpoint=tmp_path / "c", initializer="mug"))

    assert vectors() == vectors()
    assert len({vectors(), vectors(seed=1), vectors(slug="cup")}) == 3


def test_style_is_learnt_from_style_templates_and_captions_count(
    generator: Generator, validated: Make, settings: Settings, tmp_path: Path
) -> None:
    train = settings("train.steps=2").train
    abouts = ("initializer: mug\n", "initializer: mug\nkind: style\n", "initializer: mug\ncaptions: {0.png: a mug on a sofa}\n")
    digests = {
        bits(train_concept(generator, validated(about=about), train, 0, checkpoint=tmp_path / "c", initializer="mug")) for about in abouts
    }
    assert len(digests) == 3


def test_broken_training_fails_by_name(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    manifest = validated()

    def fails(match: str, *overrides: str, model: Generator = generator, named: Manifest = manifest) -> None:
        with pytest.raises(ConceptError, match=f"mug: .*{match}"):
            train_concept(model, named, settings(*overrides).train, 0, checkpoint=tmp_path / "c", initializer="mug")

    fails("broke down at step 1: .* norm inf", "train.learning_rate=1.0e+38", "train.max_norm=1.0e+300")
    fails("norm is .* beyond .*train.max_norm", "train.learning_rate=10", "train.max_norm=2")
    fails("learnt word would be cut off", "train.vectors=75")
    many = settings("train.vectors=75").train.model_copy(update={"vectors": 76})  # which no settings allow
    with pytest.raises(ConceptError, match="76 vectors do not fit: tiny reads 77 tokens"):
        train_concept(generator, manifest, many, 0, checkpoint=tmp_path / "c", initializer="mug")
    fails("already", named=replace(manifest, token="cat"))

    deaf = load_tiny(write_folder(tmp_path / "deaf"))
    with torch.no_grad():
        for name, weight in deaf.unet.named_parameters():
            if "attn2.to_out" in name:
                weight.zero_()
    fails("no gradient reached the learnt word at step 1", model=deaf)
    deaf.unet.conv_out.bias.data.fill_(float("nan"))
    fails("broke down at step 1: loss nan", model=deaf)


def test_a_changed_vocabulary_is_noticed(validated: Make, settings: Settings, tmp_path: Path) -> None:
    generator = load_tiny(write_folder(tmp_path / "model"))

    def meddle(done: int, total: int, text: str) -> None:
        generator.encoders[ONLY].table.data[5] += 1

    with pytest.raises(ConceptError, match="vocabulary of model was changed"):
        one = settings("train.steps=1").train
        train_concept(generator, validated(), one, 0, checkpoint=tmp_path / "c", initializer="mug", progress=meddle)


def test_changed_picture_is_refused(generator: Generator, validated: Make, settings: Settings, tmp_path: Path) -> None:
    manifest = validated()
    manifest.pictures[0].path.write_bytes(manifest.pictures[1].path.read_bytes())
    with pytest.raises(ConceptError, match="mug: 0.png has changed"):
        train_concept(generator, manifest, settings().train, 0, checkpoint=tmp_path / "c", initializer="mug")
