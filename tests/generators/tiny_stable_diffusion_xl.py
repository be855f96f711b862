"""Stable Diffusion XL with its real configuration, small widths and random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.generators.tiny_stable_diffusion import TEXT, VAE
from ti_pipeline.generators import stable_diffusion_1 as sd1
from ti_pipeline.generators.clip_tokenizer import clip_tokenizer
from ti_pipeline.generators.families.stable_diffusion_xl import MODEL_INDEX

SMALL, LARGE = 32, 48  # widths of the two text encoders
LARGER = {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": LARGE,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "projection_dim": 24,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
UNET = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64, 64],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 2,
    "transformer_layers_per_block": [1, 2, 3],
    "attention_head_dim": [4, 8, 8],
    "norm_num_groups": 8,
    "cross_attention_dim": SMALL + LARGE,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24 + 6 * 8,
}
SCHEDULER = {**sd1.SCHEDULER, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}


def write_folder(folder: Path) -> Path:
    """A diffusers folder as the published ones are, with weights."""
    files = {
        "model_index.json": MODEL_INDEX,
        "scheduler/scheduler_config.json": SCHEDULER,
        "text_encoder/config.json": sd1.TEXT_ENCODER | TEXT | {"num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 2},
        "text_encoder_2/config.json": sd1.TEXT_ENCODER | TEXT | LARGER,
        "unet/config.json": UNET,
        "vae/config.json": sd1.VAE | VAE | {"scaling_factor": 0.13025, "force_upcast": True},
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    for name in ("tokenizer", "tokenizer_2"):
        clip_tokenizer().save_pretrained(folder / name)
    config = folder / "tokenizer_2" / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "!"}))
    torch.manual_seed(6)
    for part, kind in (("text_encoder", CLIPTextModel), ("text_encoder_2", CLIPTextModelWithProjection)):
        kind(CLIPTextConfig.from_pretrained(folder / part)).save_pretrained(folder / part)
    for part, model in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        model.from_config(model.load_config(folder / part)).save_pretrained(folder / part)
    return folder
