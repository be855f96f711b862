"""From prompts and seeds to pictures.

A picture depends on its own prompt and seed. Every batch has one shape, filled up with repeats where there is too little
to do, because the arithmetic of a row depends on the shape of its batch but not on the rows beside it: with one
`batch_size` the pixels are the same in any order and company, with another they differ by rounding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.placeholder import Words, encode_prompts
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.sampling.solvers import build_solver

SMALL, LARGE_BATCH, BATCH = 128, 48, 16  # pixels of an edge up to which more fit, and measure faster (benchmarks/candidates)
OF_TEXT = re.compile(r"attn2\.to_[kv]$|^add_embedding$")
DECODED_PIXELS = 2**20  # at a time: four pictures of 512 pixels, so that decoding needs no more memory than denoising


@dataclass(frozen=True)
class Settings:
    """How to sample. A guidance scale of 1 is no guidance; then the negative prompt has no say."""

    solver: str
    steps: int
    guidance_scale: float
    negative_prompt: str
    batch_size: int


def sample(
    generator: Generator, prompts: Sequence[str], words: Words, seeds: Sequence[int], settings: Settings
) -> Iterator[tuple[int, Image.Image]]:
    """One RGB picture for each prompt and its seed, with its index, in order, batch by batch.

    `words` maps every learnt token in the prompts to its vectors `[n, d]`.
    Raises ParamsError when the generator's precision does not hold the numbers.
    """
    hidden = encode_texts(generator, [*prompts, settings.negative_prompt], words)
    negative = hidden[settings.negative_prompt]
    return sample_states(generator, lambda i: (hidden[prompts[i]], negative), seeds, settings)


@torch.no_grad()
def encode_texts(generator: Generator, texts: Sequence[str], words: Words) -> dict[str, torch.Tensor]:
    """Hidden states `[context, d]` of each text, once and by itself, so that none depends on its company."""
    return {text: encode_prompts(generator, [text], words)[0] for text in dict.fromkeys(texts)}


@torch.no_grad()
def sample_states(
    generator: Generator, states: Callable[[int], tuple[torch.Tensor, torch.Tensor]], seeds: Sequence[int], settings: Settings
) -> Iterator[tuple[int, Image.Image]]:
    """As `sample`; `states` gives the hidden states `[context, d]` of a picture's prompt and of its negative prompt.

    A batch is decoded while the next one is denoised.
    """
    factor = 2 ** (len(generator.vae.config.block_out_channels) - 1)
    shape = (generator.unet.config.in_channels, generator.resolution // factor, generator.resolution // factor)
    with ThreadPoolExecutor(1) as decoder:
        before: tuple[list[int], Future[list[Image.Image]]] | None = None
        for rows, wanted in fixed_batches(len(seeds), settings.batch_size):
            noise = initial_noise([seeds[i] for i in rows], shape).to(generator.device)
            conditional, unconditional = (torch.stack(part) for part in zip(*(states(i) for i in rows), strict=True))
            latents = denoise(generator, noise, conditional, unconditional, settings)
            decoding = decoder.submit(_decode_all, generator, latents, wanted, settings.batch_size)
            if before:
                yield from zip(before[0], before[1].result(), strict=True)
            before = rows[:wanted], decoding
        if before:
            yield from zip(before[0], before[1].result(), strict=True)


@torch.no_grad()
def _decode_all(generator: Generator, latents: torch.Tensor, wanted: int, batch_size: int) -> list[Image.Image]:
    if not latents.isfinite().all():
        raise ParamsError(
            f"generator.precision: {generator.name} overflows in {str(generator.dtype).removeprefix('torch.')}. Set it to float32."
        )
    return list(decode(generator, latents[:wanted], batch_size))


def denoise(
    generator: Generator, noise: torch.Tensor, conditional: torch.Tensor, unconditional: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """Latents `[batch, channels, height, width]` of `noise` in the same shape, under classifier-free guidance.

    `conditional` and `unconditional` are `[batch, context, d]`; with the guidance scale s the prediction is
    uncond + s · (cond − uncond) (Ho and Salimans 2022, arXiv 2207.12598, as Stable Diffusion counts s).
    """
    guided = settings.guidance_scale != 1
    hidden = torch.cat([unconditional, conditional]) if guided else conditional
    solver = build_solver(settings.solver, generator.scheduler_config, settings.steps)
    latents = noise * solver.init_noise_sigma
    with text_read_once(generator.unet):
        for timestep in solver.timesteps:
            scaled = solver.scale_model_input(latents, timestep).to(generator.dtype)
            both = torch.cat([scaled, scaled]) if guided else scaled
            predicted = generator.unet(both, timestep.to(generator.device), hidden).sample.float()
            if guided:
                without, with_prompt = predicted.chunk(2)
                predicted = without + settings.guidance_scale * (with_prompt - without)
            latents = solver.step(predicted, timestep, latents).prev_sample
    return latents


@contextmanager
def text_read_once(unet: torch.nn.Module) -> Iterator[None]:
    """What a U-Net makes of the text alone – keys, values, its addition to the timestep – is computed in the first step only.

    Not in a compiled U-Net, which would be compiled again for it.
    """
    of_text = [module for name, module in unet.named_modules() if OF_TEXT.search(name)]
    if unet._compiled_call_impl:
        of_text.clear()
    with ExitStack() as stack:
        for module in of_text:
            stack.callback(delattr, module, "forward")
            module.forward = _remembering(module.forward)
        yield


def _remembering(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same answer for the same tensor."""
    given = answer = None

    def remembered(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal given, answer
        if hidden is not given:
            given, answer = hidden, forward(hidden)
        return answer

    return remembered


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


def even_batch(count: int, size: int | Literal["auto"], resolution: int) -> int:
    """How many to make at a time, at most `size`, so that `count` pictures need little filling up; `auto` knows small pictures.

    Never an odd number but one: where threads share a matrix of six or ten rows, the bits of a row depend on its place.
    """
    most = size if size != "auto" else LARGE_BATCH if resolution <= SMALL else BATCH
    even = ceil(count / ceil(count / most)) if count else 1
    if even > 1 and even % 2:
        even += 1 if even < most else -1
    return even


def fixed_batches(count: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Batches of `size` indices below `count`, the last one filled up with its last index; and how many of each are wanted."""
    for start in range(0, count, size):
        rows = list(range(start, min(start + size, count)))
        yield rows + [rows[-1]] * (size - len(rows)), len(rows)
