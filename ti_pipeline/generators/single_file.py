"""Single-file checkpoints in the original layout (.safetensors, .ckpt).

Such a file has weights and no configuration. A folder beside it with its name (`dream.safetensors`, `dream/`) that holds the
configuration in diffusers' layout is taken; without one the file is read as Stable Diffusion 1.x, whose configuration is here.
A 2.x file does not even say whether it predicts epsilon or v, so it needs the folder. Neither way reads anything from a network.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.source import PARTS
from ti_pipeline.generators.stable_diffusion_1 import write_configuration

_OPEN_CLIP = "cond_stage_model.model.token_embedding.weight"  # the text encoder of 2.x
_SDXL = "conditioner.embedders."


def load_single_file(path: Path, dtype: torch.dtype) -> tuple:
    """Tokenizer, text encoder, VAE (float32), U-Net, scheduler configuration of a checkpoint file."""
    beside = path.with_suffix("")
    if beside.is_dir():
        missing = [part for part in PARTS if not any((beside / part).glob("*.json"))]
        if missing or not (beside / "model_index.json").is_file():
            lacking = ", ".join(missing) or "model_index.json"
            raise ParamsError(f"generator.model: {beside}, the configuration of {path.name}, lacks {lacking}.")
        return _load(path, beside, dtype)
    if path.suffix == ".safetensors":
        _refuse_other_families(path, beside)
    with tempfile.TemporaryDirectory() as folder:
        write_configuration(Path(folder))
        return _load(path, Path(folder), dtype)


def _load(path: Path, configuration: Path, dtype: torch.dtype) -> tuple:
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path), config=str(configuration), local_files_only=True, torch_dtype=torch.float32, safety_checker=None, feature_extractor=None
    )
    if dtype != torch.float32:
        pipeline.text_encoder.to(dtype), pipeline.unet.to(dtype)
    return pipeline.tokenizer, pipeline.text_encoder, pipeline.vae, pipeline.unet, dict(pipeline.scheduler.config)


def _refuse_other_families(path: Path, beside: Path) -> None:
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
    if any(name.startswith(_SDXL) for name in names):
        raise ParamsError(f"generator.model: {path.name} is an SDXL checkpoint. Stable Diffusion 1.x and 2.x are supported.")
    if _OPEN_CLIP in names:
        raise ParamsError(
            f"generator.model: {path.name} is a Stable Diffusion 2.x checkpoint, which does not say whether it predicts epsilon or v. "
            f"Put its configuration in diffusers' layout (model_index.json and the folders {', '.join(PARTS)}; no weights) into {beside}."
        )
