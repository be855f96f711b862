"""From prompts and seeds to pictures.

A picture depends on its own prompt and seed. Every batch has one shape, filled up with repeats where there is too little
to do, because the arithmetic of a row depends on the shape of its batch but not on the rows beside it: with one
`batch_size` the pixels are the same in any order and company, with another they differ by rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ti_pipeline.candidates.seeds import initial_noise
from ti_pipeline.candidates.solvers import build_solver
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.load import Generator
from ti_pipeline.generators.placeholder import Words, encode_prompts

DECODED_PIXELS = 2**20  # at a time: four pictures of 512 pixels, so that decoding needs no more memory than denoising


@dataclass(frozen=True)
class Settings:
    """How to sample. A guidance scale of 1 is no guidance; then the negative prompt has no say."""

    solver: str
    steps: int
    guidance_scale: float
    negative_prompt: str
    batch_size: int


@torch.no_grad()
def sample(
    generator: Generator, prompts: Sequence[str], words: Words, seeds: Sequence[int], settings: Settings
) -> Iterator[tuple[int, Image.Image]]:
    """One RGB picture for each prompt and its seed, with its index, in order, batch by batch.

    `words` maps every learnt token in the prompts to its vectors `[n, d]`.
    Raises ParamsError when the generator's precision does not hold the numbers.
    """
    hidden = {text: encode_prompts(generator, [text], words)[0] for text in dict.fromkeys([*prompts, settings.negative_prompt])}
    factor = 2 ** (len(generator.vae.config.block_out_channels) - 1)
    shape = (generator.unet.config.in_channels, generator.resolution // factor, generator.resolution // factor)
    for rows, wanted in fixed_batches(len(prompts), settings.batch_size):
        noise = initial_noise([seeds[i] for i in rows], shape).to(generator.device)
        conditional = torch.stack([hidden[prompts[i]] for i in rows])
        latents = denoise(generator, noise, conditional, hidden[settings.negative_prompt], settings)
        yield from zip(rows[:wanted], decode(generator, latents[:wanted], settings.batch_size), strict=True)


def denoise(
    generator: Generator, noise: torch.Tensor, conditional: torch.Tensor, unconditional: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Latents `[batch, channels, height, width]` of `noise` in the same shape, under classifier-free guidance.

    `conditional` is `[batch, context, d]`, `unconditional` `[context, d]`; with the guidance scale s the prediction is
    uncond + s · (cond − uncond) (Ho and Salimans 2022, arXiv 2207.12598, as Stable Diffusion counts s).
    """
    guided = settings.guidance_scale != 1
    hidden = torch.cat([unconditional.expand_as(conditional), conditional]) if guided else conditional
    solver = build_solver(settings.solver, generator.scheduler_config, settings.steps)
    latents = noise * solver.init_noise_sigma
    for timestep in solver.timesteps:
        scaled = solver.scale_model_input(latents, timestep).to(generator.dtype)
        predicted = generator.unet(torch.cat([scaled, scaled]) if guided else scaled, timestep.to(generator.device), hidden).sample.float()
        if guided:
            without, with_prompt = predicted.chunk(2)
            predicted = without + settings.guidance_scale * (with_prompt - without)
        latents = solver.step(predicted, timestep, latents).prev_sample
    if not latents.isfinite().all():
        raise ParamsError(
            f"generator.precision: {generator.name} overflows in {str(generator.dtype).removeprefix('torch.')}. Set it to float32."
        )
    return latents


def decode(generator: Generator, latents: torch.Tensor, batch_size: int) -> Iterator[Image.Image]:
    """RGB pictures of latents `[n, channels, height, width]`, at most `batch_size` at a time."""
    latents = latents.to(next(generator.vae.parameters()).dtype) / generator.vae.config.scaling_factor
    for rows, wanted in fixed_batches(len(latents), min(batch_size, max(1, DECODED_PIXELS // generator.resolution**2))):
        pixels = generator.vae.decode(latents[rows]).sample.float()
        for picture in to_bytes(pixels[:wanted]):
            yield Image.fromarray(picture)


def to_bytes(pixels: torch.Tensor) -> np.ndarray:
    """`[n, 3, height, width]` in [-1, 1] to uint8 `[n, height, width, 3]`."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def fixed_batches(count: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Batches of `size` indices below `count`, the last one filled up with its last index; and how many of each are wanted."""
    for start in range(0, count, size):
        rows = list(range(start, min(start + size, count)))
        yield rows + [rows[-1]] * (size - len(rows)), len(rows)
