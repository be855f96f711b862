"""Held against the stock pipeline: what it hears, what it draws."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, LDMTextToImagePipeline
from torch.nn import functional as F

from tests.generators.tiny_latent_diffusion import WIDTH, write_folder
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.placeholder import encode, prompt_length
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.word import ONLY, Word

PROMPT = "a photo of a {} on the moon"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("generators") / "ldm")


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return load_tiny(folder)


@pytest.fixture(scope="module")
def copied(generator: Generator) -> Word:
    ids = generator.encoders[ONLY].tokenizer("red cat", add_special_tokens=False).input_ids
    return Word("<x>", {ONLY: generator.encoders[ONLY].table[torch.tensor(ids)].clone()})


@torch.no_grad()
def test_it_draws_what_the_stock_pipeline_draws(generator: Generator, folder: Path, copied: Word) -> None:
    assert find_source(generator_settings(folder)).family.name == "latent diffusion"
    assert (generator.encoders[ONLY].table.shape[1], generator.resolution, generator.latent_shape) == (WIDTH, 64, (4, 8, 8))
    pipe = LDMTextToImagePipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    ids = pipe.tokenizer([PROMPT.format("red cat")], padding="max_length", max_length=77, return_tensors="pt").input_ids
    torch.testing.assert_close(
        encode(generator, [PROMPT.format("<x>")], {"<x>": copied}).parts["hidden"], pipe.bert(ids)[0], rtol=0, atol=1e-5
    )
    noise = initial_noise([7], generator.latent_shape)
    pipe.scheduler = generator.solver("ddim", 4)
    theirs = pipe(PROMPT.format("red cat"), num_inference_steps=4, guidance_scale=5.0, latents=noise, output_type="np").images[0]
    ((_, ours),) = sample(generator, [PROMPT.format("<x>")], {"<x>": copied}, [7], Settings("ddim", 4, 5.0, "", 1))
    assert np.abs(np.asarray(ours) / 255 - theirs).max() <= 0.5 / 255 + 1e-5
    ((_, other),) = sample(generator, [PROMPT.format("dog")], {}, [7], Settings("ddim", 4, 5.0, "", 1))
    assert np.abs(np.asarray(other) / 255 - theirs).max() > 0.01


def test_the_loss_and_its_gradient_are_those_of_the_stock_modules(generator: Generator, folder: Path, copied: Word) -> None:
    """Mean squared error of epsilon, as textual_inversion of diffusers computes it."""
    before, pipe = weight_digests(generator), LDMTextToImagePipeline.from_pretrained(folder)
    torch.manual_seed(0)
    z0, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([10, 500, 990])
    rows = {ONLY: copied.rows[ONLY].clone().requires_grad_()}
    ids = generator.tokenise([PROMPT.format("<x>")] * 3, {"<x>": 2})
    losses = generator.losses(z0, noise, t, generator.condition(ids, rows))
    (ours,) = torch.autograd.grad(losses.sum(), list(rows.values()))

    table = pipe.bert.get_input_embeddings().weight
    plain = pipe.tokenizer([PROMPT.format("red cat")] * 3, padding="max_length", max_length=77, return_tensors="pt").input_ids
    said = pipe.unet(DDPMScheduler.from_config(pipe.scheduler.config).add_noise(z0, noise, t), t, pipe.bert(plain)[0]).sample
    expected = F.mse_loss(said, noise, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    (theirs,) = torch.autograd.grad(expected.sum(), table)
    learnt = pipe.tokenizer("red cat", add_special_tokens=False).input_ids
    assert ours.abs().amax(dim=1).min() > 0
    torch.testing.assert_close(ours, theirs[torch.tensor(learnt)], rtol=1e-4, atol=1e-7)
    assert weight_digests(generator) == before


def test_prompts_are_counted_in_its_own_pieces(generator: Generator) -> None:
    assert prompt_length(generator.encoders[ONLY], "a red cat", {}) == 5
    assert prompt_length(generator.encoders[ONLY], "cats", {}) == 4  # cat ##s
    assert generator.tokenise(["a <x>"], {"<x>": 2})[ONLY][0, :6].tolist()[2:5] == [
        len(generator.encoders[ONLY].table), len(generator.encoders[ONLY].table) + 1, generator.encoders[ONLY].tokenizer.sep_token_id,
    ]  # fmt: skip


def test_a_folder_of_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    for name, part, entries, words in (
        ("vq", "vqvae", {"_class_name": "VQModel"}, "latents are those of a VQModel"),
        ("narrow", "unet", {"cross_attention_dim": 99}, "hears texts of width 99, and its BERT's are 32 wide"),
    ):
        wrong = Path(shutil.copytree(folder, tmp_path / name))
        config = wrong / part / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | entries))
        with pytest.raises(ParamsError, match=words):
            find_source(generator_settings(wrong))
