"""Epsilon, v and z_0: drawn by the formulas written out, and weighted as the published training script does it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import compute_snr

from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from ti_pipeline.generators.families.stable_diffusion import StableDiffusion
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.sampling.sample import Settings, denoise
from ti_pipeline.sampling.seeds import initial_noise

STEPS = 4


@pytest.fixture(scope="module", params=["epsilon", "v_prediction", "sample"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Generator]:
    folder = write_folder(tmp_path_factory.mktemp("generators") / request.param, prediction_type=request.param)
    return request.param, folder, load_tiny(folder)


@torch.no_grad()
def test_a_picture_is_drawn_by_what_the_model_says(model: tuple[str, Path, Generator]) -> None:
    """DDIM (Song et al. 2021, eq. 12 with η = 0), of which nothing but the U-Net is the library's."""
    prediction, folder, generator = model
    heard = generator.condition(generator.tokenise(["a red cat"], {}), None)
    noise = initial_noise([3], generator.latent_shape)
    ours = denoise(generator, noise, heard, heard, Settings("ddim", STEPS, 1.0, "", 1))

    unet, scheduler = UNet2DConditionModel.from_pretrained(folder / "unet").eval(), DDPMScheduler.from_pretrained(folder / "scheduler")
    x, bar = noise, scheduler.alphas_cumprod
    times = [1 + 1000 // STEPS * i for i in reversed(range(STEPS))]
    for t in times:
        before = bar[t - 1000 // STEPS] if t > 1000 // STEPS else bar[0]
        alpha, sigma = bar[t].sqrt(), (1 - bar[t]).sqrt()
        said = unet(x, t, heard.parts["hidden"]).sample
        if prediction == "epsilon":
            z0, epsilon = (x - sigma * said) / alpha, said
        elif prediction == "v_prediction":
            z0, epsilon = alpha * x - sigma * said, alpha * said + sigma * x
        else:
            z0, epsilon = said, (x - alpha * said) / sigma
        x = before.sqrt() * z0 + (1 - before).sqrt() * epsilon
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5)


class Saying(StableDiffusion):
    """A model of epsilon that says what its schedule asks for, which is the same picture."""

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        epsilon, alpha, sigma = super().predict(x, t, condition), self.diffusion.alpha[int(t)], self.diffusion.sigma[int(t)]
        z0 = (x - sigma * epsilon) / alpha
        return {"epsilon": epsilon, "v_prediction": alpha * epsilon - sigma * z0, "sample": z0}[self.diffusion.prediction]


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "euler", "unipc"])
def test_every_solver_understands_what_is_said(generator: Generator, solver: str) -> None:
    heard, noise = generator.condition(generator.tokenise(["a red cat"], {}), None), initial_noise([3], generator.latent_shape)
    parts = {field.name: getattr(generator, field.name) for field in fields(generator)}
    drawn = {}
    for prediction in ("epsilon", "v_prediction", "sample"):
        saying = Saying(**parts | {"scheduler_config": generator.scheduler_config | {"prediction_type": prediction}})
        drawn[prediction] = denoise(saying, noise, heard, heard, Settings(solver, 6, 1.0, "", 1))
    exact = denoise(generator, noise, heard, heard, Settings(solver, 6, 1.0, "", 1))
    for each in drawn.values():
        torch.testing.assert_close(each, exact, rtol=5e-3, atol=5e-3)  # the timesteps of `euler` lie between those of the schedule


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_is_that_of_the_published_script(model: tuple[str, Path, Generator], gamma: float) -> None:
    """train_text_to_image of diffusers: min(SNR, gamma), over SNR for epsilon and over SNR + 1 for v."""
    prediction, folder, generator = model
    snr = compute_snr(DDPMScheduler.from_pretrained(folder / "scheduler"), torch.arange(1000))
    expected = torch.stack([snr, gamma * torch.ones(1000)], dim=1).min(dim=1)[0]
    if prediction != "sample":
        expected = expected / (snr if prediction == "epsilon" else snr + 1)
    torch.testing.assert_close(generator.diffusion.min_snr(gamma), expected, rtol=1e-4, atol=1e-6)


def test_a_last_timestep_without_signal_has_a_weight(tmp_path: Path) -> None:
    weights = load_tiny(write_folder(tmp_path / "zero", rescale_betas_zero_snr=True)).diffusion.min_snr(5.0)
    assert weights.isfinite().all() and weights[-1] == 1
