"""From prompts and seeds to pictures.

A picture depends on its own prompt and seed. Every batch has one shape, filled up with repeats where there is too little
to do, because the arithmetic of a row depends on the shape of its batch but not on the rows beside it: with one
`batch_size` the pixels are the same in any order and company, with another they differ by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from PIL import Image

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Condition, Generator
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.word import Word

SMALL, LARGE_BATCH, BATCH = 128, 48, 16  # pixels of an edge up to which more fit, and measure faster (benchmarks/candidates)
DECODED_PIXELS = 2**20  # at a time: four pictures of 512 pixels, so that decoding needs no more memory than denoising


@dataclass(frozen=True)
class Settings:
    """How to sample. The guidance scale is counted as in the family's stock pipeline; without guidance the negative prompt has no say.
    `size` is width and height in pixels; None is the generator's own square."""

    solver: str
    steps: int
    guidance_scale: float
    negative_prompt: str
    batch_size: int
    size: tuple[int, int] | None = None


def sample(
    generator: Generator, prompts: Sequence[str], words: Mapping[str, Word], seeds: Sequence[int], settings: Settings
) -> Iterator[tuple[int, Image.Image]]:
    """One RGB picture for each prompt and its seed, with its index, in order, batch by batch.

    `words` are those in the prompts, by token.
    Raises ParamsError when the generator's precision does not hold the numbers.
    """
    heard = encode_texts(generator, prompts, words)
    negative = encode_negative(generator, settings.negative_prompt, words)
    return sample_conditions(generator, lambda i: (heard[prompts[i]], negative), seeds, settings)


@torch.no_grad()
def encode_texts(generator: Generator, texts: Sequence[str], words: Mapping[str, Word]) -> dict[str, Condition]:
    """What the denoiser hears of each text, once and by itself, so that none depends on its company."""
    return {text: encode(generator, [text], words) for text in dict.fromkeys(texts)}


@torch.no_grad()
def encode_negative(generator: Generator, text: str, words: Mapping[str, Word]) -> Condition:
    """What it hears of the negative prompt; where that is empty, what the stock pipeline hears when there is none."""
    return encode(generator, [text], words, negative=True) if text else generator.unconditional()


@torch.no_grad()
def sample_conditions(
    generator: Generator, heard: Callable[[int], tuple[Condition, Condition]], seeds: Sequence[int], settings: Settings
) -> Iterator[tuple[int, Image.Image]]:
    """As `sample`; `heard` gives what is heard of a picture's prompt and of its negative prompt.

    A batch is decoded while the next one is denoised.
    """
    shape = generator.latents_of(*settings.size) if settings.size else generator.latent_shape
    with ThreadPoolExecutor(1) as decoder:
        before: tuple[list[int], Future[list[Image.Image]]] | None = None
        for rows, wanted in fixed_batches(len(seeds), settings.batch_size):
            noise = initial_noise([seeds[i] for i in rows], shape).to(generator.device)
            conditional, unconditional = (Condition.cat(part) for part in zip(*(heard(i) for i in rows), strict=True))
            latents = denoise(generator, noise, conditional, unconditional, settings)
            decoding = decoder.submit(_decode_all, generator, latents[:wanted], settings)
            if before:
                yield from zip(before[0], before[1].result(), strict=True)
            before = rows[:wanted], decoding
        if before:
            yield from zip(before[0], before[1].result(), strict=True)


@torch.no_grad()
def _decode_all(generator: Generator, latents: torch.Tensor, settings: Settings) -> list[Image.Image]:
    if not latents.isfinite().all():
        raise ParamsError(
            f"generator.precision: {generator.name} overflows in {str(generator.dtype).removeprefix('torch.')}. Set it to float32."
        )
    width, height = settings.size or (generator.resolution, generator.resolution)
    return list(decode(generator, latents, min(settings.batch_size, max(1, DECODED_PIXELS // (width * height)))))


def denoise(
    generator: Generator, noise: torch.Tensor, conditional: Condition, unconditional: Condition, settings: Settings
) -> torch.Tensor:
    """Latents `[batch, channels, height, width]` of `noise` in the same shape, under the generator's own way of guidance."""
    scale = settings.guidance_scale
    contrasts = generator.contrasts(scale)
    heard = Condition.cat([unconditional, conditional]) if contrasts else generator.guided(conditional, scale)
    solver = generator.solver(settings.solver, settings.steps, noise.shape[1:])
    latents = noise * solver.init_noise_sigma
    with generator.drawing():
        for timestep in solver.timesteps:
            scaled = solver.scale_model_input(latents, timestep)
            predicted = generator.predict(torch.cat([scaled, scaled]) if contrasts else scaled, timestep, heard).float()
            if contrasts:
                negative, said = predicted.chunk(2)
                predicted = generator.contrasted(said, negative, scale)
            latents = solver.step(predicted, timestep, latents).prev_sample
    return latents


def decode(generator: Generator, latents: torch.Tensor, batch_size: int) -> Iterator[Image.Image]:
    """RGB pictures of latents `[n, channels, height, width]`, at most `batch_size` at a time."""
    for rows, wanted in fixed_batches(len(latents), batch_size):
        for picture in to_bytes(generator.decode(latents[rows])[:wanted]):
            yield Image.fromarray(picture)


def to_bytes(pixels: torch.Tensor) -> np.ndarray:
    """`[n, 3, height, width]` in [-1, 1] to uint8 `[n, height, width, 3]`."""
    return pixels.clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def even_batch(count: int, size: int | Literal["auto"], edge: int) -> int:
    """How many to make at a time, at most `size`, so that `count` pictures need little filling up; `auto` knows small pictures by their
    longer `edge` in pixels.

    Never an odd number but one: where threads share a matrix of six or ten rows, the bits of a row depend on its place.
    """
    most = size if size != "auto" else LARGE_BATCH if edge <= SMALL else BATCH
    even = ceil(count / ceil(count / most)) if count else 1
    if even > 1 and even % 2:
        even += 1 if even < most else -1
    return even


def fixed_batches(count: int, size: int) -> Iterator[tuple[list[int], int]]:
    """Batches of `size` indices below `count`, the last one filled up with its last index; and how many of each are wanted."""
    for start in range(0, count, size):
        rows = list(range(start, min(start + size, count)))
        yield rows + [rows[-1]] * (size - len(rows)), len(rows)
