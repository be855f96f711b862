"""Parameter counts of the published configurations, from the model cards, papers and headers of the published weights."""

from __future__ import annotations

import json
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion

from benchmarks.gpu import PUBLISHED

EXACT = {
    ("stable-diffusion-1.5", "unet"): 859_520_964,
    ("stable-diffusion-1.5", "text_encoder"): 123_060_480,
    ("stable-diffusion-1.5", "vae"): 83_653_863,
    ("stable-diffusion-2.1", "unet"): 865_910_724,
    ("stable-diffusion-2.1", "text_encoder"): 340_387_840,
    ("stable-diffusion-xl", "unet"): 2_567_463_684,
    ("stable-diffusion-xl", "text_encoder_2"): 694_659_840,
    ("flux.1-dev", "transformer"): 11_901_408_320,
}
BILLIONS = {  # as their authors round them, of all that their files hold
    ("stable-diffusion-3-medium", "transformer"): 2.0,
    ("stable-diffusion-3-medium", "text_encoder_3"): 4.7,
    ("stable-diffusion-3.5-medium", "transformer"): 2.5,
    ("stable-diffusion-3.5-large", "transformer"): 8.1,
    ("sana-1.6b", "transformer"): 1.6,
    ("z-image", "transformer"): 6.0,
    ("qwen-image", "transformer"): 20.0,
}


def _built(model: str, part: str) -> torch.nn.Module:
    config: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))[model][part]
    with torch.device("meta"):
        if name := config.get("_class_name"):
            return getattr(diffusers, name).from_config(config)
        name = config["architectures"][0]
        kind = getattr(transformers, name, None) or getattr(pipeline_latent_diffusion, name)
        return kind(kind.config_class(**{key: value for key, value in config.items() if key not in ("architectures", "model_type")}))


def _count(model: str, part: str) -> int:
    return sum(weight.numel() for weight in _built(model, part).parameters())


@pytest.mark.parametrize(("model", "part"), EXACT)
def test_as_many_parameters_as_published(model: str, part: str) -> None:
    assert _count(model, part) == EXACT[model, part]


@pytest.mark.parametrize(("model", "part"), BILLIONS)
def test_as_many_billions_as_published(model: str, part: str) -> None:
    stored = sum(tensor.numel() for tensor in _built(model, part).state_dict().values())
    assert stored / 1e9 == pytest.approx(BILLIONS[model, part], rel=0.05)


def test_the_papers_model_has_the_size_that_the_paper_gives() -> None:
    """1.45 billion parameters, its text encoder among them (Rombach et al. 2022, table 2)."""
    whole = sum(_count("latent-diffusion", part) for part in ("bert", "unet"))
    assert whole / 1e9 == pytest.approx(1.45, rel=0.01)
