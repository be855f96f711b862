"""SANA, Z-Image and Qwen-Image with their real configurations, small widths, small vocabularies and random weights."""

from __future__ import annotations

import inspect
import string
from pathlib import Path

import torch
import transformers
from diffusers import SanaPipeline
from transformers import Gemma2Config, GemmaTokenizer, Qwen2_5_VLConfig, Qwen2Tokenizer, Qwen3Config

from tests.generators.tiny_flow import VAE_16, WORDS, write_parts
from ti_pipeline.generators import clip_tokenizer as clip
from ti_pipeline.generators.families import qwen_image, sana, z_image

WIDTH = 32  # of the text encoders
INSTRUCTION = "\n".join(inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT = """{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"""
LAYERS = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
SANA = {
    "_class_name": "SanaTransformer2DModel",
    "in_channels": 32, "out_channels": 32, "num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2,
    "num_cross_attention_heads": 2, "cross_attention_head_dim": 16, "cross_attention_dim": 32, "caption_channels": WIDTH,
    "mlp_ratio": 2.5, "sample_size": 2, "patch_size": 1,
}  # fmt: skip
DC = {
    "_class_name": "AutoencoderDC",
    "latent_channels": 32, "attention_head_dim": 16,
    "encoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "decoder_block_types": ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3,
    "encoder_block_out_channels": [8, 8, 16, 32, 32, 32], "decoder_block_out_channels": [8, 8, 16, 32, 32, 32],
    "encoder_layers_per_block": [1] * 6, "decoder_layers_per_block": [1] * 6, "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "decoder_qkv_multiscales": [[], [], [], [5], [5], [5]], "downsample_block_type": "Conv", "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}  # fmt: skip
Z_IMAGE = {
    "_class_name": "ZImageTransformer2DModel",
    "in_channels": 16, "dim": 32, "n_layers": 2, "n_refiner_layers": 1, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": WIDTH,
    "axes_dims": [4, 6, 6], "axes_lens": [1536, 512, 512],
}  # fmt: skip
QWEN = {
    "_class_name": "QwenImageTransformer2DModel",
    "in_channels": 64, "out_channels": 16, "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "axes_dims_rope": [4, 6, 6],
}  # fmt: skip
QWEN_VAE = {"_class_name": "AutoencoderKLQwenImage", "base_dim": 8, "num_res_blocks": 2, "sample_size": 64}
DYNAMIC = {
    "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192,
    "shift": 1.0, "shift_terminal": 0.02, "time_shift_type": "exponential",
}  # fmt: skip
SCHEDULER = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}


def write_sana(folder: Path) -> Path:
    flow = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": "flow_prediction", "algorithm_type": "dpmsolver++"}
    scheduler = {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, "solver_order": 2, **flow}
    vocabulary, merges = _pieces("▁", string.printable[:94] + "\n", f"{WORDS} {INSTRUCTION}")
    vocabulary = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *vocabulary]
    GemmaTokenizer({piece: i for i, piece in enumerate(vocabulary)}, merges, add_bos_token=True).save_pretrained(folder / "tokenizer")
    config = Gemma2Config(vocab_size=len(vocabulary), num_hidden_layers=2, query_pre_attn_scalar=16, **LAYERS)
    return _write(folder, sana.MODEL_INDEX, scheduler, config, SANA, DC)


def write_z_image(folder: Path) -> Path:
    size = _write_qwen_tokenizer(folder)
    config = Qwen3Config(vocab_size=size, num_hidden_layers=3, **LAYERS)
    vae = VAE_16 | {"sample_size": 64, "scaling_factor": 0.3611, "shift_factor": 0.1159}
    return _write(folder, z_image.MODEL_INDEX, SCHEDULER | {"shift": 3.0, "use_dynamic_shifting": False}, config, Z_IMAGE, vae)


def write_qwen_image(folder: Path) -> Path:
    size = _write_qwen_tokenizer(folder)
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}
    text = {**LAYERS, "vocab_size": size, "num_hidden_layers": 2, "rope_parameters": rope, "pad_token_id": 0}
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": WIDTH, "fullatt_block_indexes": [0]}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=eyes)
    return _write(folder, qwen_image.MODEL_INDEX, SCHEDULER | DYNAMIC, config, QWEN, QWEN_VAE)


def _write(folder: Path, index: dict, scheduler: dict, text: transformers.PretrainedConfig, transformer: dict, vae: dict) -> Path:
    torch.manual_seed(9)
    getattr(transformers, index["text_encoder"][1])(text).save_pretrained(folder / "text_encoder")
    write_parts(folder, index, scheduler, {"transformer": transformer, "vae": vae})
    return folder


def _write_qwen_tokenizer(folder: Path) -> int:
    """The rows of the table that belongs to it: a few more than there are pieces, as in the published ones."""
    words = f"{WORDS} {qwen_image.BEFORE} Describe user system assistant"
    vocabulary, merges = _pieces("Ġ", "".join(clip._byte_letters()), words, alone=("Describe", "user", "system", "assistant"))
    tokenizer = Qwen2Tokenizer({piece: i for i, piece in enumerate([SPECIAL[0], *vocabulary])}, merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL[1:])})
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder / "tokenizer")
    return len(tokenizer) + 5


def _pieces(space: str, letters: str, words: str, alone: tuple[str, ...] = ()) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges of a BPE in which each word, with the space before it, is one piece; those that stand `alone` also without."""
    whole = dict.fromkeys(word for word in "".join(c if c.isalpha() else " " for c in words).split())
    merges: dict[tuple[str, str], None] = {}
    for word in [*(space + word for word in whole), *alone]:
        for end in range(1, len(word)):
            merges[word[:end], word[end]] = None
    return list(dict.fromkeys([*letters, space, *("".join(pair) for pair in merges)])), list(merges)
