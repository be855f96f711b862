"""Stable Diffusion 3 and 3.5: a transformer that hears two CLIPs beside each other, a T5 behind them, and what the CLIPs pool."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.checkpoint import blocks, denoiser_shapes, tensor_shapes
from ti_pipeline.generators.configuration import published, write_clip_tokenizer, write_parts
from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.refusals import PARTS as SETTINGS
from ti_pipeline.generators.refusals import check_channels, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile, configured

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes

PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae")
OPTIONAL = "text_encoder_3"  # the T5; without it the transformer hears zeros in its place
T5_CONTEXT = 256
T5_VOCABULARY = "a folder with the vocabulary of T5 (tokenizer.json and tokenizer_config.json)"
MODEL_INDEX = {
    "_class_name": "StableDiffusion3Pipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


class StableDiffusion3(LatentFlow):
    """Esser et al. 2024, arXiv 2403.03206."""

    DENOISER = ("transformer", "SD3Transformer2DModel")
    DENSITY = "logit-normal"
    SPOKEN = ("clip_l", "t5")  # `clip_g` beside `clip_l`: both cut a prompt into the same tokens

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        clips = [self.read(name, ids, rows, every_layer=True) for name in ("clip_l", "clip_g")]
        hidden = torch.cat([clip.hidden_states[-2] for clip in clips], dim=-1)
        width = self.denoiser.config.joint_attention_dim
        if "t5" in self.encoders:
            behind = self.read("t5", ids, rows)[0].to(hidden.dtype)
        else:
            behind = hidden.new_zeros(len(hidden), T5_CONTEXT, width)
        hidden = torch.cat([F.pad(hidden, (0, width - hidden.shape[-1])), behind], dim=1)
        return Condition({"hidden": hidden, "pooled": torch.cat([clip.text_embeds for clip in clips], dim=-1)})

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        hidden, pooled = condition.parts["hidden"], condition.parts["pooled"]
        return self.denoiser(x.to(self.dtype), hidden, pooled, t.to(self.device).expand(len(x))).sample

    @property
    def resolution(self) -> int:
        return self.denoiser.config.sample_size * self.factor

    def latents_of(self, width: int, height: int) -> tuple[int, int, int]:
        """It knows the places of so many tokens."""
        most = self.denoiser.config.pos_embed_max_size * self.grid
        if max(width, height) > most:
            raise ParamsError(f"{self.name} draws no {width} × {height} pixels: no side can be longer than {most}.")
        return super().latents_of(width, height)


def _texts(folder: Path) -> dict[str, Text]:
    from ti_pipeline.generators.loading import Text

    texts = {
        "clip_l": Text("tokenizer", "text_encoder", "CLIPTextModelWithProjection"),
        "clip_g": Text("tokenizer_2", "text_encoder_2", "CLIPTextModelWithProjection"),
    }
    if (folder / OPTIONAL).is_dir():
        texts["t5"] = Text("tokenizer_3", OPTIONAL, "T5EncoderModel", "T5TokenizerFast", T5_CONTEXT)
    return texts


def _load(source: Source, settings: params.Generator) -> LatentFlow:
    from ti_pipeline.generators.loading import load_latent_model

    with configured(source, _SINGLE) as folder:
        texts = _texts(folder)
    return load_latent_model(StableDiffusion3, texts, _SINGLE, source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import text_readers

    with configured(source, _SINGLE) as folder:
        texts = _texts(folder)
    return text_readers(texts, source, _SINGLE)


def _encoders(source: Source) -> dict[str, bool]:
    """A T5 learns on request: a word needs its rows where prompts are long or hold letters, and twice the time for them."""
    with configured(source, _SINGLE) as folder:
        return {name: name != "t5" for name in _texts(folder)}


def _configure(path: Path, folder: Path) -> None:
    parts = published("stable_diffusion_3")
    parts["transformer"] |= transformer_config(denoiser_shapes(tensor_shapes(path)))
    write_parts(parts, folder)
    write_clip_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2", pad="!")


_SINGLE = SingleFile(
    MODEL_INDEX,
    _configure,
    {
        "text_encoder": ("text_encoders.clip_l.transformer.",),
        "text_encoder_2": ("text_encoders.clip_g.transformer.",),
        OPTIONAL: ("text_encoders.t5xxl.transformer.",),
    },
    {"tokenizer_3": f"{T5_VOCABULARY}; or set {SETTINGS}.{OPTIONAL} to null, to do without the T5"},
    identity=("text_encoder",),
)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """Of a transformer by its tensors: what 3 medium, 3.5 medium and 3.5 large differ in."""
    width, block = shapes["x_embedder.proj.weight"][0], "joint_blocks.0.x_block.attn."
    head = shapes.get(f"{block}ln_q.weight", (64,))[0]
    return {
        "num_layers": blocks(shapes, "joint_blocks"),
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "caption_projection_dim": shapes["context_embedder.weight"][0],
        "joint_attention_dim": shapes["context_embedder.weight"][1],
        "pooled_projection_dim": shapes["y_embedder.mlp.0.weight"][1],
        "pos_embed_max_size": math.isqrt(shapes["pos_embed"][1]),
        "qk_norm": "rms_norm" if f"{block}ln_q.weight" in shapes else None,
        "dual_attention_layers": sorted({int(name.split(".")[1]) for name in shapes if ".x_block.attn2." in name}),
    }


def _told(shapes: Shapes) -> bool:
    return "joint_blocks.0.x_block.attn.qkv.weight" in denoiser_shapes(shapes)


def _check_file(path: Path, shapes: Shapes) -> None:
    check_channels(path, denoiser_shapes(shapes)["x_embedder.proj.weight"][1], 16)


def _check(folder: Path) -> None:
    transformer, vae = part_config(folder, "transformer"), part_config(folder, "vae")
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], vae.get("latent_channels", 16))
    pools = [part_config(folder, part).get("projection_dim") or 0 for part in ("text_encoder", "text_encoder_2")]
    if transformer.get("pooled_projection_dim", 2048) != sum(pools):
        what = f"put together from two models: its transformer does not hear texts that are pooled to {pools[0]} + {pools[1]} numbers"
        raise refusal(folder, what, "Download the whole model again.")


FAMILY = Family(
    name="Stable Diffusion 3",
    pipelines=frozenset({"StableDiffusion3Pipeline"}),
    parts=PARTS,
    weights=("text_encoder", "text_encoder_2", "transformer", "vae"),
    optional=("text_encoder_3", "tokenizer_3"),
    told=_told,
    check=_check,
    check_file=_check_file,
    load=_load,
    readers=_readers,
    denoiser="SD3Transformer2DModel",
    density=StableDiffusion3.DENSITY,
    encoders=_encoders,
    tables={"clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5": "text_encoder_3"},
)
