"""The embedded model: held out is held out, it loads with stock loaders, and what it draws follows the prompt."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from transformers import AutoModel

from miniature import captions
from miniature.generator import variants
from miniature.measure import background_of
from miniature.pictures import BACKGROUNDS, STYLES, compose, stylise, things

PACKAGE = Path(str(resources.files("ti_pipeline.miniature")))


@pytest.fixture(scope="module")
def pipe() -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(PACKAGE / "generator", dtype=torch.float32, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_held_out_things_are_in_no_list_and_no_caption():
    lists = things()
    trained = {*lists["core"], *lists["more"]}
    assert len(lists["held_out"]) >= 48
    assert not trained & set(lists["held_out"])
    words = {word for line in captions.corpus() for word in line.split()}
    shared = {"bear", "engine", "fire", "leaf", "ball", "clock", "alarm", "soccer", "maple"}  # parts of trained names
    assert not {word for name in lists["held_out"] for word in name.split()} - shared & words
    assert set(lists["held_out"].values()) <= trained


def test_everything_that_ships_is_safetensors_in_half_precision_and_small():
    files = [f for f in PACKAGE.rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    assert sum(f.stat().st_size for f in files) <= 60e6
    weights = [f for f in files if f.suffix == ".safetensors"]
    assert len(weights) == 5 and not [f for f in files if f.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    for file in weights:
        with safe_open(file, "pt") as opened:
            kinds = {opened.get_tensor(key).dtype for key in opened.keys()}
        assert kinds <= {torch.float16, torch.int64}


def test_the_ranker_loads_with_stock_open_clip_and_tells_prompts_apart(pipe):
    model, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{PACKAGE / 'ranker'}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{PACKAGE / 'ranker'}")
    picture = Image.new("RGB", (80, 60), BACKGROUNDS["blue"])
    with torch.no_grad():
        image = model.eval().encode_image(prepare(picture)[None], normalize=True)
        text = model.encode_text(tokenize([captions.full("dog", "noto", c) for c in ("blue", "red")]), normalize=True)
    assert (image @ text.T)[0].argmax() == 0


def test_the_judge_loads_with_stock_transformers():
    model = AutoModel.from_pretrained(PACKAGE / "judge", local_files_only=True, dtype=torch.float32).eval()
    with torch.no_grad():
        assert torch.isfinite(model(torch.zeros(2, 3, 64, 64)).pooler_output).all()


@pytest.mark.slow
def test_background_and_style_follow_the_prompt(pipe):
    asked = [("dog", "noto", "red"), ("dog", "mono", "yellow"), ("car", "twemoji", "blue"), ("house", "noto", "green")]
    made = pipe(
        [captions.full(*a) for a in asked],
        num_inference_steps=12,
        guidance_scale=3.0,
        output_type="np",
        generator=[torch.Generator().manual_seed(i) for i in range(4)],
    ).images
    pictures = [np.round(p * 255).astype(np.uint8) for p in made]
    assert [background_of(p) for p in pictures] == [a[2] for a in asked]
    inside = [p[16:48, 16:48].astype(float) for p in pictures]
    colourfulness = [np.abs(p - p.mean(-1, keepdims=True)).mean() for p in inside]
    assert colourfulness[1] < colourfulness[3]  # a print in one ink is greyer than a noto house


def test_techniques_keep_the_outline_of_the_artwork():
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[16:48, 16:48] = (200, 40, 40, 255)
    for style in STYLES[4:]:
        out = stylise(rgba, style)
        assert (out[..., 3] > 127).sum() == 32 * 32
        assert compose(out, "white")[0, 0].tolist() == list(BACKGROUNDS["white"])


def test_variants_exchange_colours_and_mirror():
    rgba = np.random.default_rng(0).integers(0, 256, (64, 64, 4), np.uint8)
    made = [variants(rgba, v) for v in range(12)]
    assert (made[0] == rgba).all() and (made[1] == rgba[:, ::-1]).all()
    assert len({m.tobytes() for m in made}) == 12
    assert {m[..., 3].tobytes() for m in made} == {rgba[..., 3].tobytes(), rgba[:, ::-1, 3].tobytes()}


@pytest.mark.parametrize(("thing", "expected"), [("apple", "an apple"), ("dog", "a dog")])
def test_articles(thing, expected):
    assert captions.article(thing) == expected
