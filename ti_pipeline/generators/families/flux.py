"""FLUX.1: a transformer that hears a T5, and what a CLIP pools. The guidance is distilled into the model, or there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ti_pipeline.generators.checkpoint import blocks, denoiser_shapes, tensor_shapes
from ti_pipeline.generators.configuration import published, write_clip_tokenizer, write_parts
from ti_pipeline.generators.families.stable_diffusion_3 import T5_VOCABULARY
from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.refusals import check_channels, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes

PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer", "vae")
T5_CONTEXT = 512
FILL = 384  # numbers of a token of the model that fills in: latents, masked latents and the mask
MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


class Flux(LatentFlow):
    """Black Forest Labs 2024. Four neighbouring latents are one token of the transformer."""

    DENOISER = ("transformer", "FluxTransformer2DModel")
    SPOKEN = ("t5",)

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        pooled = self.read("clip_l", ids, rows).pooler_output
        hidden = self.read("t5", ids, rows)[0].to(pooled.dtype)
        return Condition({"hidden": hidden, "pooled": pooled, "guidance": torch.ones(len(pooled), device=self.device)})

    def contrasts(self, scale: float) -> bool:
        return False

    def guidance_elsewhere(self, scale: float) -> dict[str, float]:
        distilled = {"Distilled CFG Scale": scale} if self.denoiser.config.guidance_embeds else {}
        return super().guidance_elsewhere(scale) | distilled

    def guided(self, condition: Condition, scale: float) -> Condition:
        return Condition({**condition.parts, "guidance": torch.full_like(condition.parts["guidance"], scale)})

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        samples, channels, height, width = x.shape
        hidden, distilled = condition.parts["hidden"], self.denoiser.config.guidance_embeds
        said = self.denoiser(
            packed(x.to(self.dtype)),
            hidden,
            condition.parts["pooled"],
            t.to(self.device, self.dtype).expand(samples) / 1000,
            img_ids=positions(height // 2, width // 2).to(self.device, self.dtype),
            txt_ids=torch.zeros(hidden.shape[1], 3, device=self.device, dtype=self.dtype),
            guidance=condition.parts["guidance"] if distilled else None,
        ).sample
        return unpacked(said, height, width)

    def sigmas(self, steps: int) -> list[float]:
        return np.linspace(1.0, 1 / steps, steps).tolist()

    @property
    def resolution(self) -> int:
        return self.vae.config.sample_size

    @property
    def channels(self) -> int:
        return self.denoiser.config.in_channels // 4


def packed(latents: torch.Tensor) -> torch.Tensor:
    """[b, c, h, w] to tokens of 2 × 2 latents [b, h/2 · w/2, 4 c]."""
    samples, channels, height, width = latents.shape
    parts = latents.reshape(samples, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(samples, (height // 2) * (width // 2), channels * 4)


def unpacked(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The way back to [b, c, height, width]."""
    samples, _, channels = tokens.shape
    parts = tokens.reshape(samples, height // 2, width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return parts.reshape(samples, channels // 4, height, width)


def positions(height: int, width: int) -> torch.Tensor:
    """Row and column of each token, [height · width, 3]; the first number is no picture's."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).reshape(-1, 3)


def _texts() -> dict[str, Text]:
    from ti_pipeline.generators.loading import Text

    return {
        "clip_l": Text("tokenizer", "text_encoder"),
        "t5": Text("tokenizer_2", "text_encoder_2", "T5EncoderModel", "T5TokenizerFast", T5_CONTEXT),
    }


def _load(source: Source, settings: params.Generator) -> LatentFlow:
    from ti_pipeline.generators.loading import load_latent_model

    return load_latent_model(Flux, _texts(), _SINGLE, source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import text_readers

    return text_readers(_texts(), source, _SINGLE)


def _configure(path: Path, folder: Path) -> None:
    shapes, parts = denoiser_shapes(tensor_shapes(path)), published("flux")
    parts["transformer"] |= transformer_config(shapes)
    if not parts["transformer"]["guidance_embeds"]:  # the one that was distilled to few steps
        parts["scheduler"] |= {"shift": 1.0, "use_dynamic_shifting": False}
    write_parts(parts, folder)
    write_clip_tokenizer(folder / "tokenizer")


_SINGLE = SingleFile(
    MODEL_INDEX,
    _configure,
    {"text_encoder": ("text_encoders.clip_l.transformer.",), "text_encoder_2": ("text_encoders.t5xxl.transformer.",)},
    {"tokenizer_2": T5_VOCABULARY},
)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """Of a transformer by its tensors: what dev, schnell and their smaller relatives differ in."""
    head = shapes["double_blocks.0.img_attn.norm.key_norm.scale"][0]
    rows = head // 16 * 7  # of a head's numbers, how many say in which row a token is, and as many in which column
    return {
        "num_layers": blocks(shapes, "double_blocks"),
        "num_single_layers": blocks(shapes, "single_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": shapes["img_in.weight"][0] // head,
        "joint_attention_dim": shapes["txt_in.weight"][1],
        "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        "guidance_embeds": "guidance_in.in_layer.weight" in shapes,
        "axes_dims_rope": [head - 2 * rows, rows, rows],
    }


def _told(shapes: Shapes) -> bool:
    found = denoiser_shapes(shapes)
    return "double_blocks.0.img_attn.qkv.weight" in found and "single_blocks.0.linear1.weight" in found


def _check_file(path: Path, shapes: Shapes) -> None:
    channels = denoiser_shapes(shapes)["img_in.weight"][1]
    if channels == FILL:
        raise refusal(path, "an inpainting model (FLUX.1 Fill)", "Give the model that draws from text.")
    check_channels(path, channels // 4, 16)


def _check(folder: Path) -> None:
    transformer, vae = part_config(folder, "transformer"), part_config(folder, "vae")
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], 4 * vae.get("latent_channels", 16))
    heard, said = transformer.get("joint_attention_dim", 4096), part_config(folder, "text_encoder_2").get("d_model")
    if heard != said:
        what = f"put together from two models: its transformer hears texts of width {heard}, and its T5's are {said} wide"
        raise refusal(folder, what, "Download the whole model again.")


FAMILY = Family(
    name="FLUX.1",
    pipelines=frozenset({"FluxPipeline"}),
    parts=PARTS,
    weights=("text_encoder", "text_encoder_2", "transformer", "vae"),
    told=_told,
    check=_check,
    check_file=_check_file,
    load=_load,
    readers=_readers,
    denoiser="FluxTransformer2DModel",
    density=Flux.DENSITY,
    encoders=lambda source: {"clip_l": True, "t5": False},
    tables={"clip_l": "text_encoder", "t5": "text_encoder_2"},
)
