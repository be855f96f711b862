from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ti_pipeline.generators.clip_tokenizer import clip_tokenizer
from ti_pipeline.generators.stable_diffusion_1 import write_configuration


def test_tokenizer_is_clips() -> None:
    tokenizer = clip_tokenizer()
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    reference = open_clip.SimpleTokenizer()
    for text in ("An elephant's rusty 1987 mug, naïve café", "猫 🐱 <cat-toy>!", "MIXED case & signs: ()[]"):
        assert tokenizer(text, padding="max_length").input_ids[: len(reference.encode(text)) + 1] == [49406, *reference.encode(text)]


@pytest.mark.parametrize(("part", "parameters"), [("text_encoder", 123_060_480), ("unet", 859_520_964), ("vae", 83_653_863)])
def test_configurations_have_the_published_sizes(tmp_path: Path, part: str, parameters: int) -> None:
    write_configuration(tmp_path)
    config = json.loads((tmp_path / part / "config.json").read_text())
    with torch.device("meta"):
        model = (
            CLIPTextModel(CLIPTextConfig(**config))
            if part == "text_encoder"
            else {"unet": UNet2DConditionModel, "vae": AutoencoderKL}[part].from_config(config)
        )
    assert sum(p.numel() for p in model.parameters()) == parameters
