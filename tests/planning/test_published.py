"""Numbers of the published configurations at full width, held against the published weights: not one may be too many or too few.

SIZES are the sizes of files as the Hub lists them: what comes on top of the numbers is the header of safetensors. INDEXED are the bytes of
all tensors, as the index of a model's shards says (`metadata.total_size`), where nothing comes on top. SAID is what the authors say.

Configurations that ship say in `ti_pipeline/generators/configuration.py` where their values are from. The others: huggingface/diffusers,
`scripts/convert_sana_to_diffusers.py` and `scripts/convert_dcae_to_diffusers.py`, with NVlabs/Sana, `configs/sana_config/1024ms/`;
Tongyi-MAI/Z-Image, `src/zimage/transformer.py`; and for Qwen-Image diffusers' own defaults, with the schedule as
Haoming02/sd-webui-forge-classic has it in `backend/huggingface/`.
"""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.pipelines.latent_diffusion import pipeline_latent_diffusion

from benchmarks.published import configuration_of

HEADER = 500_000  # bytes of the largest: of a whole SDXL, with 2,516 tensors
SIZES: dict[str, tuple[int, int, str, tuple[str, ...]]] = {  # bytes, bytes of a number, model and parts
    "stabilityai/sd-vae-ft-mse/diffusion_pytorch_model.safetensors": (334_643_276, 4, "stable-diffusion-1.5", ("vae",)),
    "stabilityai/stable-diffusion-xl-base-1.0/sd_xl_base_1.0.safetensors": (
        6_938_078_334, 2, "stable-diffusion-xl", ("text_encoder", "text_encoder_2", "unet", "vae"),
    ),
    "stabilityai/stable-diffusion-3-medium/sd3_medium.safetensors": (
        4_337_667_306, 2, "stable-diffusion-3-medium", ("transformer", "vae"),
    ),
    "stabilityai/stable-diffusion-3.5-medium/sd3.5_medium.safetensors": (
        5_107_104_286, 2, "stable-diffusion-3.5-medium", ("transformer", "vae"),
    ),
    "stabilityai/stable-diffusion-3.5-large/sd3.5_large.safetensors": (
        16_460_379_262, 2, "stable-diffusion-3.5-large", ("transformer", "vae"),
    ),
    "stabilityai/stable-diffusion-3.5-large/text_encoder/model.fp16.safetensors": (
        247_323_896, 2, "stable-diffusion-3.5-large", ("text_encoder",),
    ),
    "stabilityai/stable-diffusion-3.5-large/text_encoders/clip_g.safetensors": (
        1_389_382_176, 2, "stable-diffusion-3.5-large", ("text_encoder_2",),
    ),
    "black-forest-labs/FLUX.1-dev/flux1-dev.safetensors": (23_802_932_552, 2, "flux.1-dev", ("transformer",)),
    "black-forest-labs/FLUX.1-dev/ae.safetensors": (335_304_388, 4, "flux.1-dev", ("vae",)),
    "Comfy-Org/Qwen-Image_ComfyUI/split_files/vae/qwen_image_vae.safetensors": (253_806_246, 2, "qwen-image", ("vae",)),
}  # fmt: skip
INDEXED: dict[str, tuple[int, str, str]] = {  # bytes, of 2 a number; model and part
    "stabilityai/stable-diffusion-3.5-large/transformer": (16_292_561_536, "stable-diffusion-3.5-large", "transformer"),
    "stabilityai/stable-diffusion-3-medium-diffusers/text_encoder_3": (9_524_621_312, "stable-diffusion-3-medium", "text_encoder_3"),
    "Tongyi-MAI/Z-Image/transformer": (12_309_817_472, "z-image", "transformer"),
    "Tongyi-MAI/Z-Image/text_encoder": (8_044_936_192, "z-image", "text_encoder"),
    "Qwen/Qwen-Image/transformer": (40_860_802_176, "qwen-image", "transformer"),
    "Qwen/Qwen-Image/text_encoder": (16_584_333_312, "qwen-image", "text_encoder"),
    "google/gemma-2-2b-it": (5_228_683_776, "sana-1.6b", "text_encoder"),
}
SAID: dict[tuple[str, tuple[str, ...]], tuple[str, str]] = {  # the number as it is said, and where
    ("stable-diffusion-1.5", ("unet",)): ("859.52 M", "CompVis/stable-diffusion, which says so when it is loaded"),
    ("stable-diffusion-2.1", ("unet",)): ("865.91 M", "Stability-AI/stablediffusion, which says so when it is loaded"),
    ("latent-diffusion", ("unet",)): ("872.30 M", "CompVis/latent-diffusion, which says so when it is loaded"),
    ("latent-diffusion", ("bert", "unet")): ("1.45 B", "Rombach et al. 2022, arXiv 2112.10752, table 2"),
    ("stable-diffusion-xl", ("unet",)): ("2.6 B", "Podell et al. 2023, arXiv 2307.01952, table 1"),
    ("stable-diffusion-xl", ("text_encoder", "text_encoder_2")): ("817 M", "Podell et al. 2023, table 1; cut off, not rounded"),
    ("stable-diffusion-3-medium", ("transformer",)): ("2 B", "the card of stabilityai/stable-diffusion-3-medium"),
    ("stable-diffusion-3.5-medium", ("transformer",)): ("2.5 B", "Stability AI, introducing Stable Diffusion 3.5"),
    ("stable-diffusion-3.5-large", ("transformer",)): ("8.1 B", "Stability AI, introducing Stable Diffusion 3.5"),
    ("flux.1-dev", ("transformer",)): ("12 B", "black-forest-labs/flux, README.md"),
    ("sana-1.6b", ("transformer",)): ("1604 M", "Xie et al. 2024, arXiv 2410.10629, the table of model sizes"),
    ("z-image", ("transformer",)): ("6 B", "Tongyi-MAI/Z-Image, README.md"),
    ("qwen-image", ("transformer",)): ("20 B", "QwenLM/Qwen-Image, README.md"),
}


def _built(model: str, part: str) -> torch.nn.Module:
    config: dict[str, Any] = configuration_of(model)[part]
    with torch.device("meta"):
        if name := config.get("_class_name"):
            return getattr(diffusers, name).from_config(config)
        name = config["architectures"][0]
        kind = getattr(transformers, name, None) or getattr(pipeline_latent_diffusion, name)
        return kind(kind.config_class(**{key: value for key, value in config.items() if key not in ("architectures", "model_type")}))


def _stored(model: str, parts: tuple[str, ...]) -> int:
    """Numbers that their files hold; what has two names is there once."""
    networks = [_built(model, part) for part in parts]
    held = {id(each): each.numel() for network in networks for each in network.state_dict(keep_vars=True).values()}
    return sum(held.values())


@pytest.mark.parametrize("file", SIZES)
def test_as_many_numbers_as_the_published_file_has(file: str) -> None:
    size, each, model, parts = SIZES[file]
    assert 0 < size - each * _stored(model, parts) < HEADER


@pytest.mark.parametrize("folder", INDEXED)
def test_as_many_numbers_as_the_published_shards_have(folder: str) -> None:
    size, model, part = INDEXED[folder]
    assert 2 * _stored(model, (part,)) == size


@pytest.mark.parametrize(("model", "parts"), SAID)
def test_as_many_as_its_authors_say(model: str, parts: tuple[str, ...]) -> None:
    number, unit = SAID[model, parts][0].split()
    decimals = len(number.partition(".")[2])
    found = _stored(model, parts) / {"M": 1e6, "B": 1e9}[unit]
    cut_off = "cut off" in SAID[model, parts][1]
    assert float(number) == (int(found * 10**decimals) / 10**decimals if cut_off else round(found, decimals))
