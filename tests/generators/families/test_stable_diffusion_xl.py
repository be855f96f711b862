"""Held against the stock pipeline: what it hears, what it draws, what it is trained on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from torch.nn import functional as F

from tests.generators.exported import lines_of
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder
from tests.generators.tiny_stable_diffusion_xl import LARGE, SMALL
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.placeholder import check_prompt, check_width, encode
from ti_pipeline.generators.reader import TokenizersAlone
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.word import ONLY, Word

PROMPT = "a photo of a {} on the moon"


@pytest.fixture(scope="module")
def stock(xl_folder: Path) -> StableDiffusionXLPipeline:
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_folder, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def copied(xl: Generator) -> Word:
    """A word whose rows are those of two of the vocabulary's words, of each text encoder its own."""
    rows = {}
    for name, encoder in xl.encoders.items():
        ids = encoder.tokenizer("red cat", add_special_tokens=False).input_ids
        rows[name] = encoder.table[torch.tensor(ids)].clone()
    return Word("<x>", rows)


def test_the_family_is_told_and_has_two_text_encoders(xl: Generator, xl_folder: Path, tmp_path: Path) -> None:
    source = find_source(generator_settings(xl_folder))
    assert source.family.name == "Stable Diffusion XL"
    assert {name: encoder.table.shape[1] for name, encoder in xl.encoders.items()} == {"clip_l": SMALL, "clip_g": LARGE}
    assert (xl.resolution, xl.latent_shape) == (64, (4, 8, 8))
    unnamed = Path(shutil.copytree(xl_folder, tmp_path / "unnamed"))
    (unnamed / "model_index.json").unlink()
    assert find_source(generator_settings(unnamed)).family.name == "Stable Diffusion XL"
    assert find_source(generator_settings(unnamed)).digest == source.digest
    (unnamed / "text_encoder_2" / "note.json").write_text("{}")
    assert find_source(generator_settings(unnamed)).digest != source.digest
    alone = TokenizersAlone(source, ("clip_l", "clip_g"))
    assert {name: encoder.frame.context for name, encoder in alone.learning.items()} == dict.fromkeys(xl.encoders, 77)


@torch.no_grad()
def test_what_it_hears_is_what_the_stock_pipeline_hears(xl: Generator, stock: StableDiffusionXLPipeline, copied: Word) -> None:
    theirs, nothing, pooled, pooled_nothing = stock.encode_prompt(PROMPT.format("red cat"), device="cpu", do_classifier_free_guidance=True)
    ours, silence = encode(xl, [PROMPT.format("<x>")], {"<x>": copied}), xl.unconditional()
    torch.testing.assert_close(ours.parts["hidden"], theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.parts["pooled"], pooled, rtol=0, atol=1e-5)
    assert torch.equal(silence.parts["hidden"], nothing) and torch.equal(silence.parts["pooled"], pooled_nothing)
    for height, width in ((64, 64), (64, 96)):
        beside = xl.heard_beside(ours, torch.zeros(1, 4, height // 8, width // 8))
        size = (height, width)
        assert beside["time_ids"].tolist() == stock._get_add_time_ids(size, (0, 0), size, torch.float32, 24).tolist()
    other = encode(xl, ["a photo"], {})
    assert not torch.allclose(other.parts["pooled"], pooled, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("negative", ["", "blurry, dark"])
def test_what_it_draws_is_what_the_stock_pipeline_draws(
    xl: Generator, stock: StableDiffusionXLPipeline, copied: Word, negative: str
) -> None:
    noise = initial_noise([7], xl.latent_shape)
    stock.scheduler = xl.solver("euler", 4)
    theirs = stock(
        PROMPT.format("red cat"),
        negative_prompt=negative or None,
        guidance_scale=5.0,
        num_inference_steps=4,
        latents=noise,
        output_type="np",
    ).images[0]
    settings = Settings("euler", 4, 5.0, negative, 1)
    ((_, picture),) = sample(xl, [PROMPT.format("<x>")], {"<x>": copied}, [7], settings)
    assert np.abs(np.asarray(picture) / 255 - theirs).max() <= 0.5 / 255 + 1e-5
    ((_, plain),) = sample(xl, [PROMPT.format("dog")], {}, [7], settings)
    assert np.abs(np.asarray(plain) / 255 - theirs).max() > 0.01


@torch.no_grad()
def test_the_written_word_draws_the_same_picture_in_the_stock_pipeline(
    xl: Generator, xl_folder: Path, copied: Word, tmp_path: Path
) -> None:
    path, family = tmp_path / "learned_embeds.safetensors", find_source(generator_settings(xl_folder)).family
    write_word(path, replace(copied, provenance={"token": "<x>", "tables": json.dumps(family.tables)}))
    pipe = StableDiffusionXLPipeline.from_pretrained(xl_folder, add_watermarker=False)
    exec(lines_of(path, "<x>"), {"pipe": pipe})
    theirs, _, pooled, _ = pipe.encode_prompt(PROMPT.format("<x> <x>_1"), device="cpu", do_classifier_free_guidance=False)
    ours = encode(xl, [PROMPT.format("<x>")], {"<x>": read_word(path)})
    torch.testing.assert_close(ours.parts["hidden"], theirs, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.parts["pooled"], pooled, rtol=0, atol=1e-5)


def test_the_loss_is_the_published_one_and_reaches_both_words(xl: Generator, stock: StableDiffusionXLPipeline, copied: Word) -> None:
    """As textual_inversion_sdxl of diffusers computes it: mean squared error of epsilon, embeds and time ids beside each other."""
    before = weight_digests(xl)
    torch.manual_seed(0)
    z0, noise, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([10, 500, 990])
    rows = {name: each.clone().requires_grad_() for name, each in copied.rows.items()}
    ids = xl.tokenise([PROMPT.format("<x>")] * 3, {"<x>": 2})
    losses = xl.losses(z0, noise, t, xl.condition(ids, rows))
    gradients = torch.autograd.grad(losses.sum(), list(rows.values()))

    tables = [stock.text_encoder.get_input_embeddings().weight, stock.text_encoder_2.get_input_embeddings().weight]
    for table in tables:
        table.requires_grad_(True)
    hidden, _, pooled, _ = stock.encode_prompt([PROMPT.format("red cat")] * 3, device="cpu", do_classifier_free_guidance=False)
    noisy = DDPMScheduler.from_config(stock.scheduler.config).add_noise(z0, noise, t)
    beside = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 3)}
    predicted = stock.unet(noisy, t, hidden, added_cond_kwargs=beside).sample
    expected = F.mse_loss(predicted, noise, reduction="none").mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    theirs = torch.autograd.grad(expected.sum(), tables)
    for table in tables:
        table.requires_grad_(False)
    for ours, table, encoder in zip(gradients, theirs, xl.encoders.values(), strict=True):
        learnt = encoder.tokenizer("red cat", add_special_tokens=False).input_ids
        assert ours.abs().max() > 0
        torch.testing.assert_close(ours, table[torch.tensor(learnt)], rtol=1e-4, atol=1e-7)
    assert weight_digests(xl) == before


def test_a_word_of_another_family_is_refused_by_name(xl: Generator) -> None:
    with pytest.raises(ConceptError, match=r"the vectors of <x> have 32 numbers and xl takes 32 \(clip_l\) and 48 \(clip_g\) numbers"):
        check_width(xl, "x", Word("<x>", {ONLY: torch.zeros(1, SMALL)}))
    with pytest.raises(ConceptError, match="takes 87 tokens and xl reads 77"):
        check_prompt(xl, "x", "red " * 85, {})


@torch.no_grad()
def test_an_index_may_say_that_nothing_is_the_empty_prompt(xl_folder: Path, copied: Word, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(xl_folder, tmp_path / "empty"))
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"force_zeros_for_empty_prompt": False}))
    generator, pipe = load_tiny(folder), StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    _, nothing, _, pooled = pipe.encode_prompt("a photo", device="cpu", do_classifier_free_guidance=True)
    assert nothing.abs().max() > 0
    torch.testing.assert_close(generator.unconditional().parts["hidden"], nothing, rtol=0, atol=1e-5)
    torch.testing.assert_close(generator.unconditional().parts["pooled"], pooled, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ["ddim", "dpmsolver++", "euler", "unipc"])
def test_a_spacing_that_the_schedule_asks_for_has_its_name(xl: Generator, solver: str) -> None:
    """DDIM has none but its own, and the library's ignores what is asked for."""
    asking = replace(xl, scheduler_config=xl.scheduler_config | {"use_karras_sigmas": True})
    same = torch.equal(asking.solver(solver, 20).timesteps, xl.solver(solver, 20).timesteps)
    assert same == (solver == "ddim")
    assert asking.spacing(solver, 20, xl.latent_shape) == ("DDIM" if same else "Karras")


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"_class_name": "EDMDPMSolverMultistepScheduler"}, r"trained by noise levels of its own \(EDMDPMSolver"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "trained along a rectified flow"),
        ({"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"}, "trained along a rectified flow"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True}, "trained along a rectified flow"),
    ],
)
@pytest.mark.parametrize("family", ["sd", "xl"])
def test_a_network_that_was_trained_otherwise_is_refused(
    family: str, schedule: dict[str, str], words: str, xl_folder: Path, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "model") if family == "sd" else Path(shutil.copytree(xl_folder, tmp_path / "model"))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    with pytest.raises(ParamsError, match=words):
        find_source(generator_settings(folder))


def test_a_folder_that_is_put_together_wrongly_is_refused(xl_folder: Path, tmp_path: Path) -> None:
    for name, part, entries, words in (
        ("narrow", "unet", {"cross_attention_dim": 99}, r"does not hear texts of width 32 \+ 48"),
        ("inpainting", "unet", {"in_channels": 9}, "an inpainting model"),
    ):
        wrong = Path(shutil.copytree(xl_folder, tmp_path / name))
        config = wrong / part / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | entries))
        with pytest.raises(ParamsError, match=words):
            find_source(generator_settings(wrong))
    lacking = Path(shutil.copytree(xl_folder, tmp_path / "lacking"))
    (lacking / "text_encoder_2" / "model.safetensors").unlink()
    with pytest.raises(ParamsError, match=r"lacks text_encoder_2/\*\.safetensors"):
        find_source(generator_settings(lacking))
