"""Stable Diffusion 3 and FLUX.1 with their real configurations, small widths, small vocabularies and random weights."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import torch
import transformers
from transformers import CLIPTextConfig, T5Config, T5EncoderModel, T5TokenizerFast

from tests.generators.tiny_stable_diffusion import TEXT, VAE
from tests.generators.tiny_stable_diffusion_xl import LARGER
from ti_pipeline.generators import stable_diffusion_1 as sd1
from ti_pipeline.generators.clip_tokenizer import clip_tokenizer
from ti_pipeline.generators.families import flux, stable_diffusion_3

SMALL, LARGE, T5 = 32, 48, 96  # widths of the text encoders
T5_CONFIG = {
    "d_model": T5,
    "d_kv": 16,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 2,
    "is_gated_act": True,
    "feed_forward_proj": "gated-gelu",
}
VAE_16 = sd1.VAE | VAE | {"latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609, "use_quant_conv": False}
VAE_16 |= {"use_post_quant_conv": False}
SD3 = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 8, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 2, "attention_head_dim": 16,
    "num_attention_heads": 4, "joint_attention_dim": T5, "caption_projection_dim": 64, "pooled_projection_dim": SMALL + 24,
    "pos_embed_max_size": 8, "qk_norm": "rms_norm",
}  # fmt: skip
FLUX = {
    "_class_name": "FluxTransformer2DModel",
    "patch_size": 1, "in_channels": 64, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 4,
    "joint_attention_dim": T5, "pooled_projection_dim": SMALL, "guidance_embeds": True, "axes_dims_rope": [4, 6, 6],
}  # fmt: skip
CLIP = sd1.TEXT_ENCODER | TEXT | {"num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 2}
WORDS = "a an the of on in with and photo picture good clean dirty dark red blue cat dog mug moon beach toy is my one"


def write_stable_diffusion_3(folder: Path, t5: bool = True) -> Path:
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    clips = {"text_encoder": CLIP, "text_encoder_2": sd1.TEXT_ENCODER | TEXT | LARGER}
    index = stable_diffusion_3.MODEL_INDEX | ({} if t5 else {"text_encoder_3": [None, None], "tokenizer_3": [None, None]})
    _write(folder, index, scheduler, clips, ("transformer", SD3), VAE_16)
    if t5:
        _write_t5(folder, "tokenizer_3", "text_encoder_3")
    return folder


def write_flux(folder: Path, guided: bool = True) -> Path:
    shifting = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0, **shifting}
    if not guided:
        scheduler |= {"use_dynamic_shifting": False, "shift": 1.0}
    vae = VAE_16 | {"sample_size": 64, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    _write(folder, flux.MODEL_INDEX, scheduler, {"text_encoder": CLIP}, ("transformer", FLUX | {"guidance_embeds": guided}), vae)
    _write_t5(folder, "tokenizer_2", "text_encoder_2")
    return folder


def _write(folder: Path, index: dict, scheduler: dict, clips: dict[str, dict], denoiser: tuple[str, dict], vae: dict) -> None:
    torch.manual_seed(9)
    for part, config in clips.items():
        write_config(folder / part, config)
        tokenizer = folder / part.replace("text_encoder", "tokenizer")
        clip_tokenizer().save_pretrained(tokenizer)
        if part == "text_encoder_2":
            config = tokenizer / "tokenizer_config.json"
            config.write_text(json.dumps(json.loads(config.read_text()) | {"pad_token": "!"}))
        getattr(transformers, index[part][1])(CLIPTextConfig.from_pretrained(folder / part)).save_pretrained(folder / part)
    write_parts(folder, index, scheduler, {denoiser[0]: denoiser[1], "vae": vae})


def write_parts(folder: Path, index: dict, scheduler: dict, parts: dict[str, dict]) -> None:
    """The index, the schedule, and with random weights the parts that are diffusers' own."""
    write_config(folder / "scheduler", scheduler, "scheduler_config.json")
    write_config(folder, index, "model_index.json")
    for part, config in parts.items():
        write_config(folder / part, config)
        kind = getattr(diffusers, index[part][1])
        model = kind.from_config(kind.load_config(folder / part))
        for weight in model.parameters():  # what is zero at first says nothing of what is heard
            if weight.abs().max() == 0:
                torch.nn.init.normal_(weight, std=0.05)
        model.save_pretrained(folder / part)


def write_config(folder: Path, value: dict, name: str = "config.json") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value), encoding="utf-8")


def _write_t5(folder: Path, tokenizer: str, encoder: str) -> None:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((f"▁{word}", -5.0) for word in WORDS.split()), ("▁", -6.0)]
    pieces += [(sign, -8.0) for sign in "abcdefghijklmnopqrstuvwxyz<>.,-"]
    T5TokenizerFast(vocab=pieces, extra_ids=0).save_pretrained(folder / tokenizer)
    T5EncoderModel(T5Config(vocab_size=len(pieces), **T5_CONFIG)).save_pretrained(folder / encoder)
