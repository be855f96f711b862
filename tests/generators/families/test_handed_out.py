"""The written word draws, in the stock pipelines of U-Nets, the same picture by the lines that go with it; of others see `test_flow`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from tests.generators.exported import lines_of
from tests.generators.tiny_latent_diffusion import write_folder as write_ldm
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder
from tests.generators.tiny_stable_diffusion_xl import write_folder as write_xl
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, sample
from ti_pipeline.sampling.seeds import initial_noise
from ti_pipeline.words.files import read_word, write_word
from ti_pipeline.words.word import Word

PROMPT = "a photo of a {} on the moon"
KINDS: dict[str, tuple[Callable[[Path], Path], str, dict[str, Any]]] = {
    "sd1": (write_folder, "ddim", {"safety_checker": None}),
    "sd2": (lambda folder: write_folder(folder, family=2), "ddim", {"safety_checker": None}),
    "xl": (write_xl, "euler", {"add_watermarker": False}),
    "ldm": (write_ldm, "ddim", {}),
}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_written_word_draws_the_same_picture_in_the_stock_pipeline(kind: str, tmp_path: Path) -> None:
    write, solver, beside = KINDS[kind]
    folder = write(tmp_path / "model")
    generator, family = load_tiny(folder), find_source(generator_settings(folder)).family
    torch.manual_seed(3)
    tables = {name: encoder.table for name, encoder in generator.encoders.items()}
    rows = {name: table[[20, 21]] + 0.3 * table.std() * torch.randn(2, table.shape[1]) for name, table in tables.items()}
    about = {"token": "<x>", "initializer": "red dog"}
    if not family.loads_words:
        about["tables"] = json.dumps({name: family.tables[name] for name in rows})
    path = tmp_path / "learned_embeds.safetensors"
    write_word(path, Word("<x>", rows, provenance=about))

    pipe: Any = DiffusionPipeline.from_pretrained(folder, **beside)
    pipe.set_progress_bar_config(disable=True)
    exec(lines_of(path, "<x>"), {"pipe": pipe})
    pipe.scheduler = generator.solver(solver, 4)
    how = {"num_inference_steps": 4, "guidance_scale": 5.0, "latents": initial_noise([7], generator.latent_shape), "output_type": "np"}
    typed = "<x>" if family.loads_words else "<x> <x>_1"  # of a word that it has loaded by itself it knows the other vectors
    theirs = pipe(PROMPT.format(typed), **how).images[0]

    def drawn(prompt: str) -> np.ndarray:
        ((_, picture),) = sample(generator, [prompt], {"<x>": read_word(path)}, [7], Settings(solver, 4, 5.0, "", 1))
        return np.asarray(picture) / 255

    assert np.abs(drawn(PROMPT.format("<x>")) - theirs).max() <= 0.5 / 255 + 1e-5
    assert np.abs(drawn(PROMPT.format("red dog")) - theirs).max() > 0.002
