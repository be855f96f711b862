"""Configurations that their authors published, for single files, which have weights alone. They ship with the package.

Where the values of `configurations/` were looked up, all of them in public repositories:

- `latent_diffusion_text`: CompVis/stable-diffusion, `configs/latent-diffusion/txt2img-1p4B-eval.yaml` (the same as in the paper's
  rinongal/textual_inversion, `txt2img-1p4B-finetune.yaml`). Its "linear" schedule is linear in the square roots, and its DDIM sampler takes
  each timestep one later and ends on the first alpha (`ldm/modules/diffusionmodules/util.py`).
- `stable_diffusion_2`, `stable_diffusion_xl`: the folders of stabilityai/stable-diffusion-2-inpainting and
  diffusers/stable-diffusion-xl-1.0-inpainting-0.1, which differ from the models for text in the first layer alone, as
  lllyasviel/stable-diffusion-webui-forge has them in `backend/huggingface/`. The size and the `force_upcast` of XL's VAE are those that
  Stable Diffusion 3 has taken over from it.
- `stable_diffusion_3`: stabilityai/stable-diffusion-3-medium-diffusers and stable-diffusion-3.5-large, at the same place. What 3.5 medium
  has of its own: huggingface/diffusers, `scripts/convert_sd3_to_diffusers.py`; its shift: Stability-AI/sd3.5, `sd3_infer.py`.
- `flux`: black-forest-labs/FLUX.1-dev and FLUX.1-schnell, at the same place; the VAE's numbers: black-forest-labs/flux, `src/flux/util.py`.
- `qwen_image`: its language model and its VAE as kohya-ss/musubi-tuner has them, `src/musubi_tuner/qwen_image/qwen_image_utils.py`.

`tests/planning/test_published.py` holds their sizes against those of the published weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

Configuration = dict[str, dict[str, Any]]  # by part
SCHEDULER = "scheduler"


def published(name: str) -> Configuration:
    """That of a model, by the name of its file in `configurations/`."""
    return json.loads((resources.files(__package__) / "configurations" / f"{name}.json").read_text(encoding="utf-8"))


def write_parts(parts: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write it in diffusers' layout."""
    for part, config in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        file = "scheduler_config.json" if part == SCHEDULER else "config.json"
        (folder / part / file).write_text(json.dumps(config), encoding="utf-8")


def write_clip_tokenizer(folder: Path, pad: str | None = None) -> None:
    """OpenAI CLIP's; `pad` is the piece that fills a prompt up, where it is not the one that ends it."""
    from ti_pipeline.generators.clip_tokenizer import clip_tokenizer

    tokenizer = clip_tokenizer()
    if pad:
        tokenizer.pad_token = pad
    tokenizer.save_pretrained(folder)
