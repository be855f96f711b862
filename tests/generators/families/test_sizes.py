"""Pictures that are no squares, held against each family's stock pipeline: what it draws, and what it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FluxPipeline,
    LDMTextToImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UniPCMultistepScheduler,
)
from torch.nn import functional as F

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.sampling.sample import Settings, denoise, sample
from ti_pipeline.sampling.seeds import initial_noise

WIDTH, HEIGHT = 96, 64
PROMPT = "a photo of a red cat"
SOLVERS: dict[str, Any] = {
    "ddim": DDIMScheduler,
    "dpmsolver++": DPMSolverMultistepScheduler,
    "euler": EulerDiscreteScheduler,
    "unipc": UniPCMultistepScheduler,
}
KINDS: dict[str, tuple[Callable[[Path], Path], type[DiffusionPipeline], str]] = {
    "sd": (write_folder, StableDiffusionPipeline, "ddim"),
    "xl": (write_xl, StableDiffusionXLPipeline, "euler"),
    "ldm": (write_ldm, LDMTextToImagePipeline, "ddim"),
    "sd3": (write_stable_diffusion_3, StableDiffusion3Pipeline, "euler"),
    "flux": (write_flux, FluxPipeline, "euler"),
}


@dataclass
class Case:
    name: str
    generator: Generator
    pipe: Any
    solver: str

    @property
    def heard(self) -> Condition:
        with torch.no_grad():
            return self.generator.condition(self.generator.tokenise([PROMPT], {}), None)


@pytest.fixture(scope="module", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    write, kind, solver = KINDS[request.param]
    folder = write(tmp_path_factory.mktemp("generators") / request.param)
    beside = {"safety_checker": None} if request.param == "sd" else {"add_watermarker": False} if request.param == "xl" else {}
    pipe = kind.from_pretrained(folder, **beside)
    pipe.set_progress_bar_config(disable=True)
    return Case(request.param, load_tiny(folder), pipe, solver)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0])
def test_it_draws_what_the_stock_pipeline_draws(case: Case, scale: float) -> None:
    generator, pipe = case.generator, case.pipe
    shape = generator.latents_of(WIDTH, HEIGHT)
    assert shape[1:] == (8, 12)
    noise, settings = initial_noise([7], shape), Settings(case.solver, 4, scale, "", 1, (WIDTH, HEIGHT))
    ours = denoise(generator, noise, case.heard, generator.unconditional(), settings)
    if case.name in ("sd", "xl", "ldm"):
        pipe.scheduler = generator.solver(case.solver, 4)
    how = {"num_inference_steps": 4, "guidance_scale": scale, "width": WIDTH, "height": HEIGHT, "output_type": "latent"}
    if case.name == "ldm":  # it has no way to give latents
        drawn = torch.from_numpy(pipe([PROMPT], latents=noise, **how | {"output_type": "np"}).images[0]).permute(2, 0, 1)[None]
        torch.testing.assert_close((generator.decode(ours) / 2 + 0.5).clamp(0, 1), drawn, rtol=0, atol=1e-5)
    elif case.name == "flux":
        theirs = pipe(PROMPT, latents=pipe._pack_latents(noise, 1, *shape), **how).images
        torch.testing.assert_close(ours, pipe._unpack_latents(theirs, HEIGHT, WIDTH, 8), rtol=0, atol=1e-5)
    else:
        torch.testing.assert_close(ours, pipe(PROMPT, latents=noise, **how).images, rtol=0, atol=1e-5)
    ((_, picture),) = sample(generator, [PROMPT], {}, [7], settings)
    assert picture.size == (WIDTH, HEIGHT)


@torch.no_grad()
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", ["sd", "xl"], indirect=True)  # of flows see `test_flow`
def test_every_solver_draws_what_the_stock_pipeline_draws_with_it(case: Case, solver: str) -> None:
    noise = initial_noise([7], case.generator.latent_shape)
    before, case.pipe.scheduler = case.pipe.scheduler, SOLVERS[solver].from_config(case.generator.scheduler_config)
    theirs = case.pipe(PROMPT, latents=noise, num_inference_steps=4, guidance_scale=4.0, output_type="latent").images
    case.pipe.scheduler = before
    ours = denoise(case.generator, noise, case.heard, case.generator.unconditional(), Settings(solver, 4, 4.0, "", 1))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_size_between_two_places_of_its_grid_is_refused(case: Case) -> None:
    grid = 16 if case.name in ("sd3", "flux") else 8
    assert case.generator.grid == grid
    with pytest.raises(ParamsError, match=f"draws no 96 × 68 pixels: both must be multiples of {grid}"):
        case.generator.latents_of(96, 68)
    if case.name == "sd3":
        with pytest.raises(ParamsError, match="no side can be longer than 128"):
            case.generator.latents_of(144, 32)


@torch.no_grad()
def test_it_is_trained_on_what_the_stock_network_says_at_that_size(case: Case) -> None:
    """The published formulas; half of the places count, and one sample counts twice as much."""
    generator, pipe, heard = case.generator, case.pipe, case.heard.expand(2)
    torch.manual_seed(0)
    shape = (2, *generator.latents_of(WIDTH, HEIGHT))
    z0, noise, t = torch.randn(shape), torch.randn(shape), torch.tensor([100, 700])
    weight = torch.zeros(2, 1, 8, 12)
    weight[0, ..., :6], weight[1, ..., :6] = 2, 4
    losses = generator.losses(z0, noise, t, heard, weight)
    hidden = heard.parts["hidden"]
    if case.name in ("sd", "xl", "ldm"):
        scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        size = torch.tensor([[float(HEIGHT), WIDTH, 0, 0, HEIGHT, WIDTH]] * 2)
        beside = {"text_embeds": heard.parts["pooled"], "time_ids": size} if case.name == "xl" else None
        said, target = pipe.unet(scheduler.add_noise(z0, noise, t), t, hidden, added_cond_kwargs=beside).sample, noise
    else:
        u = (t + 0.5) / 1000
        mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (4 * 6 - 256)
        raw, shift = (u, torch.tensor(mu).exp()) if case.name == "flux" else (torch.distributions.Normal(0.0, 1.0).icdf(u).sigmoid(), 3.0)
        sigma = shift * raw / (1 + (shift - 1) * raw)
        noisy, target = z0 + sigma[:, None, None, None] * (noise - z0), noise - z0
        if case.name == "flux":
            tokens = pipe._pack_latents(noisy, *shape)
            places = pipe._prepare_latent_image_ids(2, 4, 6, "cpu", torch.float32)
            how = {"img_ids": places, "txt_ids": torch.zeros(512, 3), "guidance": torch.ones(2)}
            said = pipe._unpack_latents(pipe.transformer(tokens, hidden, heard.parts["pooled"], sigma, **how).sample, HEIGHT, WIDTH, 8)
        else:
            said = pipe.transformer(noisy, hidden, heard.parts["pooled"], 1000 * sigma).sample
    expected = F.mse_loss(said[..., :6], target[..., :6], reduction="none").mean(dim=(1, 2, 3)) * torch.tensor([1.0, 2.0])
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(generator.losses(z0, noise, t, heard, torch.ones(2, 1, 8, 12)), generator.losses(z0, noise, t, heard))
