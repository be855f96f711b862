"""Stable Diffusion folders and files with the real configurations and small widths, made at random."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ti_pipeline import params
from ti_pipeline.generators import stable_diffusion_1 as sd1
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.load import load_generator

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "projection_dim": 32}
# With the real 32 groups, a group would be two numbers at the lowest level, and its gradient nothing but rounding.
UNET = {"sample_size": 8, "block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 32, "norm_num_groups": 8}
VAE = {"sample_size": 64, "block_out_channels": [32, 32, 32, 32]}
SD2 = {
    "scheduler": {"prediction_type": "v_prediction"},
    "text_encoder": {"hidden_act": "gelu", "num_hidden_layers": 3, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0},
    "unet": {"attention_head_dim": [4, 8, 8, 8], "use_linear_projection": True},
}


def write_folder(folder: Path, family: int = 1, weights: bool = True, **scheduler: object) -> Path:
    """A diffusers folder of Stable Diffusion 1.x or 2.x; its text encoder's keys are named as in the published files."""
    sd1.write_configuration(folder)
    changes = {"text_encoder": TEXT, "unet": UNET, "vae": VAE, "scheduler": {}}
    files = {part: folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json") for part in changes}
    for part, change in changes.items():
        own = SD2.get(part, {}) if family == 2 else {}
        config = json.loads(files[part].read_text()) | change | own | (scheduler if part == "scheduler" else {})
        files[part].write_text(json.dumps(config))
    if family == 2:
        tokenizer = folder / "tokenizer" / "tokenizer_config.json"
        tokenizer.write_text(json.dumps(json.loads(tokenizer.read_text()) | {"pad_token": "!"}))
    if weights:
        _write_weights(folder)
    return folder


def load_tiny(folder: Path, **settings: object) -> Generator:
    """Load a folder or file with the settings of params.yaml, on the CPU in float32 unless told otherwise."""
    return load_generator(generator_settings(folder, **settings))


def generator_settings(model: Path | str, **settings: object) -> params.Generator:
    chosen = {"model": str(model), "device": "cpu", "precision": "float32"} | settings
    return params.load(Path(__file__).parents[2] / "params.yaml").generator.model_copy(update=chosen)


def _write_weights(folder: Path) -> None:
    torch.manual_seed(5)
    text = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder"))
    old = {f"text_model.{name}": tensor.contiguous() for name, tensor in text.state_dict().items()}
    old["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(old, folder / "text_encoder" / "model.safetensors", {"format": "pt"})
    for part, model in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        model.from_config(model.load_config(folder / part)).save_pretrained(folder / part)


def write_single_file(folder: Path, path: Path) -> Path:
    """The folder's weights under the original code's names (CompVis latent-diffusion), in one file."""
    names = {}
    for name in load_file(folder / "text_encoder" / "model.safetensors"):
        names["text_encoder", name] = f"cond_stage_model.transformer.{name}"
    for name in load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"):
        names["unet", name] = f"model.diffusion_model.{_unet_name(name)}"
    for name in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors"):
        names["vae", name] = f"first_stage_model.{_vae_name(name)}"
    weights = {part: load_file(next((folder / part).glob("*.safetensors"))) for part in ("text_encoder", "unet", "vae")}
    tensors = {}
    for (part, name), original in names.items():
        tensor = weights[part][name]
        linear_as_conv = part == "vae" and "attentions" in name and "group_norm" not in name and name.endswith("weight")
        tensors[original] = (tensor[:, :, None, None] if linear_as_conv else tensor).contiguous()
    if path.suffix == ".ckpt":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)
    return path


def _unet_name(name: str, attending: Collection[str] = ("1", "2", "3")) -> str:
    """`attending` are the levels on the way up that have attention."""
    layers = 2
    fixed = {
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "add_embedding.linear_1": "label_emb.0.0",
        "add_embedding.linear_2": "label_emb.0.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    for ours, theirs in fixed.items():
        if name.startswith(f"{ours}."):
            return _resnet_name(name.replace(ours, theirs, 1))
    pattern = r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.*)"
    side, level, kind, index, rest = re.fullmatch(pattern, name).groups()
    level, index = int(level), int(index)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        place = f"input_blocks.{1 + level * (layers + 1) + index}.{0 if kind == 'resnets' else 1}"
    elif kind == "upsamplers":
        place = f"output_blocks.{level * (layers + 1) + layers}.{2 if str(level) in attending else 1}"
    else:
        place = f"output_blocks.{level * (layers + 1) + index}.{0 if kind == 'resnets' else 1}"
    return _resnet_name(f"{place}.{rest}")


def _resnet_name(name: str) -> str:
    if "transformer_blocks" in name or name.endswith(("proj_in.weight", "proj_in.bias", "proj_out.weight", "proj_out.bias")):
        return name
    swaps = {
        ".norm1.": ".in_layers.0.",
        ".conv1.": ".in_layers.2.",
        ".norm2.": ".out_layers.0.",
        ".conv2.": ".out_layers.3.",
        ".time_emb_proj.": ".emb_layers.1.",
        ".conv_shortcut.": ".skip_connection.",
    }
    for ours, theirs in swaps.items():
        name = name.replace(ours, theirs)
    return name


def _vae_name(name: str) -> str:
    name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{3 - int(m[1])}", re.sub(r"down_blocks\.(\d)", r"down.\1", name))
    swaps = {
        "resnets.": "block.",
        "downsamplers.0": "downsample",
        "upsamplers.0": "upsample",
        "conv_shortcut": "nin_shortcut",
        "mid_block.block.0": "mid.block_1",
        "mid_block.block.1": "mid.block_2",
        "mid_block.attentions.0": "mid.attn_1",
        "conv_norm_out": "norm_out",
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }
    for ours, theirs in swaps.items():
        name = name.replace(ours, theirs)
    return name
