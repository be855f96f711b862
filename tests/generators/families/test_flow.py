"""Stable Diffusion 3 and FLUX.1 held against their stock pipelines: what they hear, what they draw, what they are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline, StableDiffusion3Pipeline
from torch.nn import functional as F

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny
from ti_pipeline.generators.flow import LEVELS, levels, logit_normal
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.word import Word

PROMPT = "a photo of a {} on the moon"


@dataclass
class Case:
    """A tiny model, and how its stock pipeline is called to draw the same."""

    folder: Path
    generator: Generator
    pipe: DiffusionPipeline
    draw: Callable[..., np.ndarray]

    @property
    def word(self) -> Word:
        """A word whose rows are those of two of the vocabulary's, of each text encoder its own."""
        rows = {}
        for name, encoder in self.generator.encoders.items():
            rows[name] = encoder.table[torch.tensor(encoder.tokenizer("red cat", add_special_tokens=False).input_ids)].clone()
        return Word("<x>", rows)


def _stable_diffusion_3(folder: Path, t5: bool) -> Case:
    write_stable_diffusion_3(folder, t5)
    pipe = StableDiffusion3Pipeline.from_pretrained(folder, **({} if t5 else {"text_encoder_3": None, "tokenizer_3": None}))

    def draw(prompt: str, negative: str, latents: torch.Tensor) -> np.ndarray:
        said = {"negative_prompt": negative} if negative else {}
        return pipe(prompt, guidance_scale=4.0, num_inference_steps=4, latents=latents, output_type="np", **said).images[0]

    return Case(folder, load_tiny(folder), pipe, draw)


def _flux(folder: Path, guided: bool) -> Case:
    write_flux(folder, guided)
    pipe = FluxPipeline.from_pretrained(folder)

    def draw(prompt: str, negative: str, latents: torch.Tensor) -> np.ndarray:
        samples, channels, height, width = latents.shape
        tokens = FluxPipeline._pack_latents(latents, samples, channels, height, width)
        how = {"guidance_scale": 4.0, "num_inference_steps": 4, "height": 64, "width": 64, "output_type": "np"}
        return pipe(prompt, latents=tokens, **how).images[0]

    return Case(folder, load_tiny(folder), pipe, draw)


MAKERS: dict[str, tuple[Callable[..., Case], Any]] = {
    "sd3": (_stable_diffusion_3, True),
    "sd3-without-t5": (_stable_diffusion_3, False),
    "flux-dev": (_flux, True),
    "flux-schnell": (_flux, False),
}


@pytest.fixture(scope="module", params=MAKERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    make, how = MAKERS[request.param]
    made = make(tmp_path_factory.mktemp("generators") / request.param, how)
    made.pipe.set_progress_bar_config(disable=True)
    return made


def test_the_family_is_told_by_its_folder(case: Case) -> None:
    family = find_source(generator_settings(case.folder)).family.name
    assert family == ("FLUX.1" if "flux" in case.folder.name else "Stable Diffusion 3")
    assert (case.generator.resolution, case.generator.latent_shape) == (64, (16, 8, 8))


@torch.no_grad()
def test_what_it_hears_is_what_the_stock_pipeline_hears(case: Case) -> None:
    prompt, ours = PROMPT.format("red cat"), encode(case.generator, [PROMPT.format("<x>")], {"<x>": case.word})
    if isinstance(case.pipe, FluxPipeline):
        hidden, pooled, _ = case.pipe.encode_prompt(prompt, prompt)
    else:
        hidden, _, pooled, _ = case.pipe.encode_prompt(prompt, prompt, prompt, do_classifier_free_guidance=False)
    torch.testing.assert_close(ours.parts["hidden"], hidden, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.parts["pooled"], pooled, rtol=0, atol=1e-5)
    other = encode(case.generator, [PROMPT.format("dog")], {})
    assert (other.parts["pooled"] - pooled).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("negative", ["", "a blue dog"])
def test_what_it_draws_is_what_the_stock_pipeline_draws(case: Case, negative: str) -> None:
    latents = initial_noise([7], case.generator.latent_shape)
    theirs = case.draw(PROMPT.format("red cat"), negative, latents)
    ((_, ours),) = sample(case.generator, [PROMPT.format("<x>")], {"<x>": case.word}, [7], Settings("euler", 4, 4.0, negative, 1))
    assert np.abs(np.asarray(ours) / 255 - theirs).max() <= 0.5 / 255 + 1e-5
    ((_, other),) = sample(case.generator, [PROMPT.format("dog")], {}, [7], Settings("euler", 4, 4.0, negative, 1))
    assert np.abs(np.asarray(other) / 255 - theirs).max() > 0.002


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "unipc"])
def test_every_solver_ends_near_where_many_small_steps_end(case: Case, solver: str) -> None:
    def drawn(name: str, steps: int) -> np.ndarray:
        ((_, picture),) = sample(case.generator, [PROMPT.format("dog")], {}, [7], Settings(name, steps, 1.0, "", 1))
        return np.asarray(picture).astype(float)

    exact = drawn("euler", 80)
    assert np.abs(drawn(solver, 20) - exact).mean() < 3 < np.abs(drawn("euler", 1) - exact).mean() + 3


def test_the_loss_is_the_published_one_and_reaches_every_part_of_the_word(case: Case) -> None:
    """(1 - σ) z_0 + σ ε under the density's levels, and the velocity ε - z_0, as diffusers' training scripts have them."""
    before, generator, word = weight_digests(case.generator), case.generator, case.word
    torch.manual_seed(0)
    z0, noise, t = torch.randn(3, 16, 8, 8), torch.randn(3, 16, 8, 8), torch.tensor([10, 500, 990])
    rows = {name: each.clone().requires_grad_() for name, each in word.rows.items()}
    ids = generator.tokenise([PROMPT.format("<x>")] * 3, {"<x>": 2})
    condition = generator.condition(ids, rows)
    losses = generator.losses(z0, noise, t, condition)
    gradients = torch.autograd.grad(losses.sum(), list(rows.values()))
    assert all(gradient.abs().amax(dim=1).min() > 0 for gradient in gradients)

    u = (t + 0.5) / LEVELS
    config = case.pipe.scheduler.config
    if isinstance(case.pipe, FluxPipeline):
        mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (16 - 256)
        shift, raw = (float(np.exp(mu)) if config.use_dynamic_shifting else 1.0), u
    else:
        shift, raw = 3.0, torch.sigmoid(torch.distributions.Normal(0.0, 1.0).icdf(u))
    sigma = (shift * raw / (1 + (shift - 1) * raw))[:, None, None, None]
    noisy = (1 - sigma) * z0 + sigma * noise
    with torch.no_grad():
        if isinstance(case.pipe, FluxPipeline):
            said = case.pipe.transformer(
                FluxPipeline._pack_latents(noisy, 3, 16, 8, 8), condition.parts["hidden"], condition.parts["pooled"], sigma.flatten(),
                img_ids=FluxPipeline._prepare_latent_image_ids(3, 4, 4, "cpu", torch.float32), txt_ids=torch.zeros(512, 3),
                guidance=torch.ones(3) if case.pipe.transformer.config.guidance_embeds else None,
            ).sample  # fmt: skip
            said = FluxPipeline._unpack_latents(said, 64, 64, 8)
        else:
            said = case.pipe.transformer(noisy, condition.parts["hidden"], condition.parts["pooled"], 1000 * sigma.flatten()).sample
    expected = F.mse_loss(said, noise - z0, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses.detach(), expected, rtol=1e-4, atol=1e-5)
    assert weight_digests(generator) == before


@torch.no_grad()
def test_a_latent_comes_back_from_the_vae_as_the_stock_pipeline_has_it(case: Case) -> None:
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    posterior, vae = case.generator.posterior(pixels), case.pipe.vae
    expected = (vae.encode(pixels).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor
    torch.testing.assert_close(posterior.mean, expected)
    torch.testing.assert_close(
        case.generator.decode(expected), vae.decode(expected / vae.config.scaling_factor + vae.config.shift_factor).sample
    )


def test_noise_levels_are_drawn_as_often_as_their_density_says() -> None:
    drawn = levels(logit_normal, 1.0, torch.device("cpu"))
    assert len(drawn) == LEVELS and (drawn.diff() > 0).all() and 0 < drawn[0] and drawn[-1] < 1
    assert abs(drawn.logit().mean()) < 1e-4 and abs(drawn.logit().std() - 1) < 0.01
