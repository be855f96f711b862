"""Names that others' code gives to the weights of text encoders and VAEs, made to those of transformers and diffusers."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Tensors = dict[str, torch.Tensor]

_OPEN_CLIP = "transformer.resblocks."
_LDM_BERT = "token_emb.weight"
_WAN = "encoder.downsamples."
_PROJECTION = "text_projection.weight"
_SCALES = (".scale_weight", ".weight_scale")  # of weights in fp8, by the user interfaces that write them
_BESIDE_FP8 = (*_SCALES, ".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8")
# CompVis latent-diffusion's x-transformers: layer 2 i is attention, 2 i + 1 is the feed-forward network of layer i.
_BERT_NAMES = (
    (r"^token_emb\.", "model.embed_tokens."),
    (r"^pos_emb\.emb\.", "model.embed_positions."),
    (r"^norm\.", "model.layer_norm."),
    (r"^attn_layers\.layers\.(\d*[02468])\.0\.", "model.layers.{}.self_attn_layer_norm."),
    (r"^attn_layers\.layers\.(\d*[02468])\.1\.to_([qkv])\.", "model.layers.{}.self_attn.{}_proj."),
    (r"^attn_layers\.layers\.(\d*[02468])\.1\.to_out\.", "model.layers.{}.self_attn.out_proj."),
    (r"^attn_layers\.layers\.(\d*[13579])\.0\.", "model.layers.{}.final_layer_norm."),
    (r"^attn_layers\.layers\.(\d*[13579])\.1\.net\.0\.0\.", "model.layers.{}.fc1."),
    (r"^attn_layers\.layers\.(\d*[13579])\.1\.net\.2\.", "model.layers.{}.fc2."),
)


def unscaled(tensors: Tensors, dtype: torch.dtype) -> Tensors:
    """Weights in `dtype`; those in fp8 that have a scale beside them are multiplied by it."""
    made = {}
    for name, tensor in tensors.items():
        if name.endswith(_BESIDE_FP8):
            continue
        scale = next((tensors[key] for end in _SCALES if (key := name.removesuffix(".weight") + end) in tensors), None)
        if scale is not None and name.endswith(".weight"):
            if scale.numel() not in (1, len(tensor)):
                raise ValueError(f"{name} has {scale.numel()} scales for {len(tensor)} rows, and one or as many as there are rows are read")
            tensor = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
        made[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return made


def text_encoder_weights(tensors: Tensors, config: PretrainedConfig, projects: bool) -> Tensors:
    """The weights of one text encoder by the library's names. `projects` is whether its class has a projection of what it pools: where
    a file has none, it is the identity, as in the code that Stability AI published with Stable Diffusion 3."""
    if any(name.startswith(_OPEN_CLIP) for name in tensors):
        from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

        tensors = convert_open_clip_checkpoint(SimpleNamespace(config=config), tensors, prefix="")
    elif _LDM_BERT in tensors:
        tensors = {_bert_name(name): tensor for name, tensor in tensors.items()}
    if projects and _PROJECTION not in tensors:
        tensors = {**tensors, _PROJECTION: torch.eye(config.projection_dim, config.hidden_size)}
    return tensors


def moving_vae_weights(tensors: Tensors) -> Tensors:
    """The weights of a VAE for moving pictures by diffusers' names; its authors, and user interfaces, have Wan's."""
    if not any(name.startswith(_WAN) for name in tensors):
        return tensors
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    return convert_wan_vae_to_diffusers(tensors)


def _bert_name(name: str) -> str:
    for pattern, ours in _BERT_NAMES:
        if found := re.match(pattern, name):
            layer, *rest = found.groups() or ("0",)
            return ours.format(int(layer) // 2, *rest) + name[found.end() :]
    return name
