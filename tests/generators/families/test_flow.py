"""Families of rectified flow held against their stock pipelines: what they hear, what they draw, what they are trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from torch.nn import functional as F

from tests.generators.exported import lines_of
from tests.generators.families.stock import SCALE, STEPS, STOCK, Stock, without_padding
from tests.generators.tiny_stable_diffusion import generator_settings
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.families.flux import packed
from ti_pipeline.generators.flow import LEVELS, levels, logit_normal
from ti_pipeline.generators.generator import weight_digests
from ti_pipeline.generators.placeholder import encode, word_ids
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.word import Word

PROMPT = "a photo of a {} on the moon"
THING = "blue mug"  # no instruction speaks of one
TEXTS = (PROMPT, "my {}, clean", "{} in a photo")


@pytest.fixture(scope="module", params=STOCK)
def stock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    return STOCK[request.param](tmp_path_factory.mktemp("generators") / request.param)


@pytest.fixture
def word(stock: Stock) -> Word:
    """A word whose rows are those of two of the vocabulary's, of each text encoder its own."""
    each = {name: (encoder.table, word_ids(encoder.tokenizer, THING)) for name, encoder in stock.generator.encoders.items()}
    return Word("<x>", {name: table[torch.tensor(ids)].clone() for name, (table, ids) in each.items()})


def drawn(stock: Stock, word: Word, prompt: str, settings: Settings) -> np.ndarray:
    ((_, picture),) = sample(stock.generator, [prompt], {"<x>": word}, [7], settings)
    return np.asarray(picture) / 255


def test_the_family_is_told_by_its_folder(stock: Stock, tmp_path: Path) -> None:
    assert find_source(generator_settings(stock.folder)).family.name == stock.family
    assert (stock.generator.resolution, stock.generator.latent_shape) == (64, stock.size)
    (unnamed := tmp_path / "unnamed").mkdir()
    for part in stock.folder.iterdir():
        if part.is_dir():
            (unnamed / part.name).symlink_to(part, target_is_directory=True)
    assert find_source(generator_settings(unnamed)).family.name == stock.family


def test_a_folder_that_is_put_together_wrongly_is_refused(stock: Stock, tmp_path: Path) -> None:
    for key, value, words in (("in_channels", 77, "draws from more than text"), ("width", 99, "put together from")):
        wrong = Path(shutil.copytree(stock.folder, tmp_path / key, symlinks=True))
        config = wrong / "transformer" / "config.json"
        about = json.loads(config.read_text())
        heard = {"caption_channels", "cap_feat_dim", "joint_attention_dim", "pooled_projection_dim"} & set(about)
        config.write_text(json.dumps(about | ({key: value} if key in about else dict.fromkeys(heard, value))))
        with pytest.raises(ParamsError, match=words):
            find_source(generator_settings(wrong))


@torch.no_grad()
@pytest.mark.parametrize("text", TEXTS)
def test_what_it_hears_is_what_the_stock_pipeline_hears(stock: Stock, word: Word, text: str) -> None:
    if text.startswith("{}") and stock.family in ("Z-Image", "Qwen-Image"):
        pytest.skip("to its vocabulary a word that begins a line is another than within one")
    theirs, ours = stock.heard(text.format(THING)), without_padding(encode(stock.generator, [text.format("<x>")], {"<x>": word}).parts)
    other = stock.heard(text.format("red dog"))
    for name, part in theirs.items():
        torch.testing.assert_close(ours[name], part, rtol=0, atol=1e-5)
        assert (other[name] - part).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("negative", ["", "a red dog"])
def test_what_it_draws_is_what_the_stock_pipeline_draws(stock: Stock, word: Word, negative: str) -> None:
    latents = initial_noise([7], stock.generator.latent_shape)
    theirs = stock.draw(PROMPT.format(THING), negative, latents)
    how = Settings(stock.solver, STEPS, SCALE, negative, 1)
    assert np.abs(drawn(stock, word, PROMPT.format("<x>"), how) - theirs).max() <= 0.5 / 255 + 1e-5
    assert np.abs(drawn(stock, word, PROMPT.format("dog"), how) - theirs).max() > 0.002


@torch.no_grad()
def test_a_picture_that_is_no_square_is_what_the_stock_pipeline_draws(stock: Stock, word: Word) -> None:
    theirs = stock.draw(PROMPT.format(THING), "a red dog", initial_noise([7], stock.generator.latents_of(96, 64)))
    assert theirs.shape == (64, 96, 3)
    ours = drawn(stock, word, PROMPT.format("<x>"), Settings(stock.solver, STEPS, SCALE, "a red dog", 1, (96, 64)))
    assert np.abs(ours - theirs).max() <= 0.5 / 255 + 1e-5
    with pytest.raises(ParamsError, match=f"both must be multiples of {stock.generator.grid}"):
        stock.generator.latents_of(96, 72)


@torch.no_grad()
@pytest.mark.parametrize("stock", ["sd3", "sd3-without-t5", "flux-dev", "sana"], indirect=True)
@pytest.mark.parametrize(("solver", "kind"), [("dpmsolver++", DPMSolverMultistepScheduler), ("unipc", UniPCMultistepScheduler)])
def test_another_solver_draws_what_the_stock_pipeline_draws_with_it(stock: Stock, word: Word, solver: str, kind: Any) -> None:
    config = stock.pipe.scheduler.config
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": config.get("flow_shift") or config.shift}
    other = replace(stock)
    other.pipe.scheduler = kind.from_config(config, solver_order=2, **flow)
    theirs = other.draw(PROMPT.format(THING), "a red dog", initial_noise([7], stock.generator.latent_shape))
    ours = drawn(stock, word, PROMPT.format("<x>"), Settings(solver, STEPS, SCALE, "a red dog", 1))
    assert np.abs(ours - theirs).max() <= 0.5 / 255 + 1e-5
    assert np.abs(ours - drawn(stock, word, PROMPT.format("<x>"), Settings("euler", STEPS, SCALE, "a red dog", 1))).max() > 0.002


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 4.0])
def test_guidance_is_what_other_tools_make_of_their_numbers(stock: Stock, scale: float) -> None:
    """A1111 and ComfyUI: negative + CFG · (said - negative); Forge tells a distilled model its number beside it."""
    generator, elsewhere = stock.generator, stock.generator.guidance_elsewhere(scale)
    said, negative = torch.randn(2, 1, *stock.size, generator=torch.Generator().manual_seed(1))
    ours = generator.contrasted(said, negative, scale) if generator.contrasts(scale) else said
    theirs = negative + elsewhere["CFG scale"] * (said - negative)
    if stock.family == "Qwen-Image":  # which makes each token as long as it was
        ours, theirs = (F.normalize(packed(each), dim=-1) for each in (ours, theirs))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    distilled = {"Distilled CFG Scale": scale} if generator.denoiser.config.get("guidance_embeds") else {}
    assert {name: number for name, number in elsewhere.items() if name != "CFG scale"} == distilled


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_with_little_guidance_it_draws_what_the_stock_pipeline_draws(stock: Stock, word: Word, scale: float) -> None:
    theirs = stock.draw(PROMPT.format(THING), "a red dog", initial_noise([7], stock.generator.latent_shape), scale)
    ours = drawn(stock, word, PROMPT.format("<x>"), Settings(stock.solver, STEPS, scale, "a red dog", 1))
    assert np.abs(ours - theirs).max() <= 0.5 / 255 + 1e-5


@torch.no_grad()
def test_a_picture_does_not_depend_on_longer_prompts_beside_it(stock: Stock, word: Word) -> None:
    prompts = [PROMPT.format("<x>"), f"{PROMPT.format('<x>')} {'with a good toy ' * 12}", "a"]
    words, how = {"<x>": word}, Settings(stock.solver, STEPS, SCALE, "", len(prompts))
    together = [np.asarray(picture) / 255 for _, picture in sample(stock.generator, prompts, words, [7, 8, 9], how)]
    theirs = stock.draw(PROMPT.format(THING), "", initial_noise([7], stock.generator.latent_shape))
    assert np.abs(together[0] - theirs).max() <= 0.5 / 255 + 1e-5


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "unipc"])
def test_every_solver_ends_near_where_many_small_steps_end(stock: Stock, word: Word, solver: str) -> None:
    def after(name: str, steps: int) -> np.ndarray:
        return 255 * drawn(stock, word, PROMPT.format("dog"), Settings(name, steps, stock.unguided, "", 1))

    exact = after("euler", 80)
    assert np.abs(after(solver, 20) - exact).mean() < 3 < np.abs(after("euler", 2) - exact).mean() + 3


@pytest.mark.parametrize(("density", "edges"), [(None, (64, 64)), (None, (96, 64)), ("uniform", (64, 64)), ("logit-normal", (64, 64))])
def test_the_loss_is_the_published_one_and_reaches_every_part_of_the_word(
    stock: Stock, word: Word, density: str | None, edges: tuple[int, int]
) -> None:
    """(1 - σ) z_0 + σ ε under the density's levels, and the velocity ε - z_0, as diffusers' training scripts have them but for their
    shift (`Stock.shifted`); and the gradient is that of the stock modules' own tables."""
    generator = replace(stock.generator, density=density)
    before, shape = weight_digests(generator), (3, *generator.latents_of(*edges))
    torch.manual_seed(0)
    z0, noise, t = torch.randn(shape), torch.randn(shape), torch.tensor([10, 500, 990])
    rows = {name: each.clone().requires_grad_() for name, each in word.rows.items()}
    ids = generator.tokenise([PROMPT.format("<x>")] * 3, {"<x>": len(word)})
    losses = generator.losses(z0, noise, t, generator.condition(ids, rows))
    gradients = torch.autograd.grad(losses.sum(), list(rows.values()))

    quantiles, tokens = (t + 0.5) / LEVELS, (edges[0] // generator.grid) * (edges[1] // generator.grid)
    drawn = {"uniform": quantiles, "logit-normal": torch.sigmoid(torch.distributions.Normal(0.0, 1.0).icdf(quantiles))}
    sigma = stock.shifted(drawn[density or stock.density], tokens)
    torch.testing.assert_close(generator.levels(tokens)[t], sigma)
    tables = [stock.table(name).requires_grad_() for name in rows]
    at = sigma[:, None, None, None]
    said = stock.velocity((1 - at) * z0 + at * noise, sigma, PROMPT.format(THING))
    expected = F.mse_loss(said, noise - z0, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    theirs = torch.autograd.grad(expected.sum(), tables)
    for name, ours, table in zip(rows, gradients, theirs, strict=True):
        expected = table[torch.tensor(word_ids(generator.encoders[name].tokenizer, THING))]
        assert ours.abs().amax(dim=1).min() > 0
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6 + 1e-4 * expected.abs().max().item())
    for table in tables:
        table.requires_grad_(False)
    assert weight_digests(generator) == before


@torch.no_grad()
def test_a_latent_comes_back_from_the_vae_as_the_stock_pipeline_has_it(stock: Stock) -> None:
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    posterior, expected = stock.generator.posterior(pixels), stock.latent(pixels)
    torch.testing.assert_close(posterior.mean, expected, rtol=1e-4, atol=1e-5)
    assert posterior.std.shape == posterior.mean.shape and (posterior.std.max() == 0) == (stock.family == "SANA")
    torch.testing.assert_close(stock.generator.decode(expected), stock.pixels(expected), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("left_out", ["", "t5"])
def test_the_written_word_draws_the_same_picture_in_the_stock_pipeline(stock: Stock, tmp_path: Path, left_out: str) -> None:
    """By the lines that go with it; a text encoder for which it has no rows hears the initializer."""
    if left_out and left_out not in stock.tables:
        pytest.skip("it has no text encoder that could be left out")
    torch.manual_seed(3)
    tables = {name: stock.generator.encoders[name].table for name in stock.tables if name != left_out}
    rows = {name: table[[20, 21]] + 0.3 * table.std() * torch.randn(2, table.shape[1]) for name, table in tables.items()}
    family = find_source(generator_settings(stock.folder)).family
    about = {"token": "<x>", "initializer": "red dog", "tables": json.dumps({name: family.tables[name] for name in stock.tables})}
    path = tmp_path / "learned_embeds.safetensors"
    write_word(path, Word("<x>", rows, provenance=about))
    word, lines = read_word(path), lines_of(path, "<x>")
    other = replace(stock)
    exec(lines, {"pipe": other.pipe})
    more = {f"prompt_{family.tables[left_out][-1]}": PROMPT.format("red dog")} if left_out else {}
    assert f'prompt_{family.tables[left_out][-1]}="a photo of a red dog"' in lines if left_out else "prompt_" not in lines
    assert '# pipe("a photo of a <x> <x>_1"' in lines
    theirs = other.draw(PROMPT.format("<x> <x>_1"), "", initial_noise([7], stock.generator.latent_shape), **more)
    how = Settings(stock.solver, STEPS, SCALE, "", 1)
    assert np.abs(drawn(stock, word, PROMPT.format("<x>"), how) - theirs).max() <= 0.5 / 255 + 1e-5
    assert np.abs(drawn(stock, word, PROMPT.format("red dog"), how) - theirs).max() > 0.002


def test_the_spacing_of_steps_is_told_by_the_shift_that_is_drawn_with(stock: Stock) -> None:
    """Those end at the lowest noise level that the pipelines of Stable Diffusion 3 leave to the schedule, and at the terminal of
    Qwen-Image's."""
    whole = stock.solver == "euler" and stock.family in ("Stable Diffusion 3", "Qwen-Image")
    spaced = stock.generator.spacing(stock.solver, 20, stock.generator.latent_shape)
    assert spaced == ("Uniform" if whole else "SGM Uniform")


def test_noise_levels_are_drawn_as_often_as_their_density_says() -> None:
    drawn = levels(logit_normal, 1.0, torch.device("cpu"))
    assert len(drawn) == LEVELS and (drawn.diff() > 0).all() and 0 < drawn[0] and drawn[-1] < 1
    assert abs(drawn.logit().mean()) < 1e-4 and abs(drawn.logit().std() - 1) < 0.01
