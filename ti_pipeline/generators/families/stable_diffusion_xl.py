"""Stable Diffusion XL: two CLIP text encoders, of which the U-Net hears the states before the last beside each other, what the
larger one pools, and the size of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ti_pipeline.generators.checkpoint import denoiser_shapes
from ti_pipeline.generators.configuration import SCHEDULER, published, write_clip_tokenizer, write_parts
from ti_pipeline.generators.families.stable_diffusion import FIRST, LABELS, TEXT, said_of_schedule
from ti_pipeline.generators.families.stable_diffusion import check_file as check_unet
from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_diffusion import LatentDiffusion
from ti_pipeline.generators.refusals import check_channels, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes

PARTS = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae")
ZEROS = "force_zeros_for_empty_prompt"
REFINER = 2560  # numbers that a refiner hears beside the text
MODEL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    ZEROS: True,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


@dataclass(frozen=True, eq=False)
class StableDiffusionXL(LatentDiffusion):
    """Podell et al. 2023, arXiv 2307.01952."""

    zeros: bool = True  # are heard in place of a negative prompt where there is none

    SPOKEN = ("clip_l",)  # and `clip_g` beside it: both cut a prompt into the same tokens

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        read = {name: self.read(name, ids, rows, every_layer=True) for name in self.encoders}
        hidden = torch.cat([read[name].hidden_states[-2] for name in ("clip_l", "clip_g")], dim=-1)
        return Condition({"hidden": hidden, "pooled": read["clip_g"].text_embeds})

    def unconditional(self) -> Condition:
        """Without a negative prompt the stock pipeline hears zeros, not the empty prompt, unless the model's index says otherwise."""
        if not self.zeros:
            return super().unconditional()
        return Condition({name: torch.zeros_like(part) for name, part in super().unconditional().parts.items()})

    def any_condition(self, samples: int, tokens: int, streams: torch.Generator) -> Condition:
        width = self.encoders["clip_g"].model.config.projection_dim or 0
        pooled = torch.randn(samples, width, generator=streams).to(self.dtype)
        return Condition({**super().any_condition(samples, tokens, streams).parts, "pooled": pooled})

    def heard_beside(self, condition: Condition, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """The micro-conditioning (section 2.2) says that the picture had this size and was not cropped, as the stock pipeline does."""
        pooled, (height, width) = condition.parts["pooled"], (edge * self.factor for edge in x.shape[-2:])
        size = torch.tensor([height, width, 0, 0, height, width], dtype=pooled.dtype).to(pooled.device)
        return {"text_embeds": pooled, "time_ids": size.expand(len(pooled), -1)}


def _texts() -> dict[str, Text]:
    from ti_pipeline.generators.loading import Text

    return {"clip_l": Text("tokenizer", "text_encoder"), "clip_g": Text("tokenizer_2", "text_encoder_2", "CLIPTextModelWithProjection")}


def _load(source: Source, settings: params.Generator) -> LatentDiffusion:
    from ti_pipeline.generators.loading import load_latent_model

    generator = load_latent_model(StableDiffusionXL, _texts(), _SINGLE, source, settings)
    return replace(generator, zeros=part_config(source.path, "", "model_index.json").get(ZEROS, True))


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import text_readers

    return text_readers(_texts(), source, _SINGLE)


def _configure(path: Path, folder: Path) -> None:
    parts = published("stable_diffusion_xl")
    write_parts(parts | {SCHEDULER: parts[SCHEDULER] | said_of_schedule(path)}, folder)
    write_clip_tokenizer(folder / "tokenizer")
    write_clip_tokenizer(folder / "tokenizer_2", pad="!")


_EMBEDDERS = "conditioner.embedders."
_SINGLE = SingleFile(
    MODEL_INDEX,
    _configure,
    {"text_encoder": (f"{_EMBEDDERS}0.transformer.",), "text_encoder_2": (f"{_EMBEDDERS}1.model.",)},
)


def _told(shapes: Shapes) -> bool:
    found = denoiser_shapes(shapes)
    return FIRST in found and LABELS in found and not any(name.startswith(TEXT) for name in shapes)


def _check_file(path: Path, shapes: Shapes) -> None:
    check_unet(path, shapes)
    if denoiser_shapes(shapes)[LABELS][1] == REFINER:
        raise refusal(path, "a Stable Diffusion XL refiner, which works on a picture that is there", "Give the base model.")


def _check(folder: Path) -> None:
    unet, vae = part_config(folder, "unet"), part_config(folder, "vae")
    widths = [part_config(folder, part).get("hidden_size") for part in ("text_encoder", "text_encoder_2")]
    if "in_channels" in unet:
        check_channels(folder, unet["in_channels"], vae.get("latent_channels", 4))
    if unet.get("addition_embed_type") != "text_time" or unet.get("cross_attention_dim") != sum(width or 0 for width in widths):
        what = f"put together from two models: its U-Net does not hear texts of width {' + '.join(map(str, widths))}"
        raise refusal(folder, what, "Download the whole model again.")


FAMILY = Family(
    name="Stable Diffusion XL",
    pipelines=frozenset({"StableDiffusionXLPipeline"}),
    parts=PARTS,
    weights=("text_encoder", "text_encoder_2", "unet", "vae"),
    told=_told,
    check=_check,
    check_file=_check_file,
    load=_load,
    readers=_readers,
    layers=True,
    diffuses=True,
    encoders=lambda source: {"clip_l": True, "clip_g": True},
    tables={"clip_l": "text_encoder", "clip_g": "text_encoder_2"},
)
