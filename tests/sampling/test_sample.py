from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.sampling.sample import Settings, even_batch, fixed_batches, sample, to_bytes
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.word import ONLY, Word

SETTINGS = Settings(solver="ddim", steps=4, guidance_scale=5.0, negative_prompt="", batch_size=5)
PROMPTS = [f"a photo of a <x> on the {place}" for place in ("moon", "beach", "moon", "table", "grass", "street", "beach")]
SEEDS = [101, 102, 103, 104, 105, 106, 107]
WORDS = {"<x>": Word("<x>", {ONLY: 0.02 * torch.randn(2, 32, generator=torch.Generator().manual_seed(0))})}


def pictures(generator: Generator, order: list[int], settings: Settings = SETTINGS) -> dict[int, np.ndarray]:
    """The pictures of the prompts and seeds in `order`, by their place in the lists above."""
    made = sample(generator, [PROMPTS[i] for i in order], WORDS, [SEEDS[i] for i in order], settings)
    return {order[place]: np.asarray(picture).astype(int) for place, picture in made}


@pytest.fixture(scope="module")
def seven(generator: Generator) -> dict[int, np.ndarray]:
    return pictures(generator, list(range(7)))


def test_pictures_are_whole_and_differ(generator: Generator, seven: dict[int, np.ndarray]) -> None:
    assert list(seven) == list(range(7))
    assert all(picture.shape == (generator.resolution, generator.resolution, 3) for picture in seven.values())
    assert min(np.abs(seven[i] - seven[j]).mean() for i in range(7) for j in range(i)) > 1


@pytest.fixture()
def one_thread() -> Iterator[None]:
    """Several threads share out a batch by place, and sums come in another order: bits are a promise of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_in_batches_of_one_shape_order_and_company_change_no_bit(generator: Generator, one_thread: None) -> None:
    in_order = pictures(generator, list(range(7)))
    shuffled = pictures(generator, [6, 2, 4, 0, 1, 5, 3])
    assert all((shuffled[i] == in_order[i]).all() for i in range(7))
    assert (pictures(generator, [5])[5] == in_order[5]).all()


def test_on_all_threads_order_changes_no_more_than_rounding(generator: Generator, seven: dict[int, np.ndarray]) -> None:
    shuffled = pictures(generator, [6, 2, 4, 0, 1, 5, 3])
    assert max(np.abs(shuffled[i] - seven[i]).max() for i in range(7)) <= 1


def test_the_size_of_the_batch_changes_no_more_than_rounding(generator: Generator, seven: dict[int, np.ndarray]) -> None:
    alone = pictures(generator, [4, 0, 6], replace(SETTINGS, batch_size=1))
    assert max(np.abs(alone[i] - seven[i]).max() for i in alone) <= 1


@torch.no_grad()
def test_ddim_and_guidance_are_those_of_the_papers(generator: Generator, seven: dict[int, np.ndarray]) -> None:
    """Song et al. 2021, eq. 12 with σ = 0, and uncond + s · (cond − uncond), written out."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, 0)
    x = initial_noise([SEEDS[3]], (4, 8, 8)).double()
    hidden = encode(generator, ["", PROMPTS[3]], WORDS).parts["hidden"]
    for t in (751, 501, 251, 1):
        uncond, cond = generator.unet(x.float().expand(2, -1, -1, -1), t, hidden).sample.double()
        noise = uncond + 5.0 * (cond - uncond)
        before = alpha_bar[t - 250] if t > 250 else alpha_bar[0]
        predicted = (x - (1 - alpha_bar[t]).sqrt() * noise) / alpha_bar[t].sqrt()
        x = before.sqrt() * predicted + (1 - before).sqrt() * noise
    expected = to_bytes(generator.vae.decode(x.float() / 0.18215).sample)[0].astype(int)
    assert np.abs(expected - seven[3]).max() <= 1


def test_negative_prompt_and_guidance_have_their_say(generator: Generator, seven: dict[int, np.ndarray]) -> None:
    assert np.abs(pictures(generator, [0], replace(SETTINGS, negative_prompt="blurry"))[0] - seven[0]).max() > 1
    unguided = replace(SETTINGS, guidance_scale=1.0)
    plain = pictures(generator, [0], unguided)[0]
    assert np.abs(plain - seven[0]).max() > 1
    assert (pictures(generator, [0], replace(unguided, negative_prompt="blurry"))[0] == plain).all()


def test_overflow_is_an_error_and_no_black_picture(generator: Generator) -> None:
    weight = generator.unet.conv_out.bias
    kept = weight.clone()
    try:
        weight.fill_(float("inf"))
        with pytest.raises(ParamsError, match="generator.precision: .* overflows in float32"):
            pictures(generator, [0])
    finally:
        weight.copy_(kept)


def test_batches_have_one_shape() -> None:
    assert list(fixed_batches(7, 3)) == [([0, 1, 2], 3), ([3, 4, 5], 3), ([6, 6, 6], 1)]
    assert list(fixed_batches(0, 3)) == []


def test_batches_are_even_so_that_little_is_computed_for_nothing() -> None:
    assert [even_batch(count, 48, 64) for count in (0, 1, 48, 50, 144)] == [1, 1, 48, 26, 48]
    assert [even_batch(3, most, 64) for most in (1, 2, 3, 4)] == [1, 2, 2, 4]  # an even number of rows, or one
    assert [even_batch(1000, "auto", edge) for edge in (64, 512)] == [48, 16]


@torch.no_grad()
def test_the_text_is_read_in_the_first_step_only(generator: Generator) -> None:
    unet, counted = generator.unet, []
    latents, hidden = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    plain = [unet(latents, t, hidden).sample for t in (900, 100)]
    other = unet(latents, 900, hidden + 1).sample
    keys = next(module for name, module in unet.named_modules() if name.endswith("attn2.to_k"))
    forward = type(keys).forward
    try:
        type(keys).forward = lambda self, x: counted.append(self is keys) or forward(self, x)
        with generator.drawing():
            assert all((unet(latents, t, hidden).sample == expected).all() for t, expected in zip((900, 100), plain, strict=True))
            assert sum(counted) == 1
            assert (unet(latents, 900, hidden + 1).sample == other).all()
        assert sum(counted) == 2
        unet(latents, 900, hidden)
        assert sum(counted) == 3
        unet._compiled_call_impl = unet._call_impl
        with generator.drawing():
            assert "forward" not in vars(keys)
    finally:
        type(keys).forward = forward
        unet._compiled_call_impl = None
