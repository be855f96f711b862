"""SANA: a transformer with linear attention over the latents of a deep compression autoencoder, which hears a Gemma 2.

A prompt is read behind an instruction to describe it in full ("complex human instruction", Xie et al. 2024, section 3.1), a negative
prompt is not.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Posterior, Rows
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.latent_model import HIDDEN, MASK
from ti_pipeline.generators.reader import Frame
from ti_pipeline.generators.refusals import check_channels, check_text_width, part_config
from ti_pipeline.generators.single_file import SingleFile, lacks_configuration
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source

PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
HEARD = 300  # tokens: the first, and the last 299 of all that are read
MODEL_INDEX = {
    "_class_name": "SanaPipeline",
    "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
    "text_encoder": ["transformers", "Gemma2Model"],
    "tokenizer": ["transformers", "GemmaTokenizer"],
    "transformer": ["diffusers", "SanaTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderDC"],
}


class Sana(LatentFlow):
    """Xie et al. 2024, arXiv 2410.10629."""

    DENOISER = ("transformer", "SanaTransformer2DModel")
    VAE = ("vae", "AutoencoderDC")
    SPOKEN = ()
    PATCH = 1

    def density(self, quantiles: torch.Tensor) -> torch.Tensor:
        return quantiles

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        hidden, mask = self.encoders[ONLY].read_masked(ids[ONLY], rows[ONLY] if rows else None)
        last = ids[ONLY].shape[1] - (HEARD - 1)
        return Condition({name: torch.cat([of[:, :1], of[:, last:]], dim=1) for name, of in ((HIDDEN, hidden), (MASK, mask))})

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        said = self.denoiser(
            x.to(self.dtype),
            condition.parts[HIDDEN].to(self.dtype),
            t.to(self.device).expand(len(x)) * self.denoiser.config.timestep_scale,
            encoder_attention_mask=condition.parts[MASK].to(self.dtype),
        ).sample
        return said[:, : self.channels]

    def posterior(self, pixels: torch.Tensor) -> Posterior:
        """Its autoencoder says one latent and no spread around it."""
        latent = self.vae.encode(pixels.to(self.device)).latent * self.vae.config.scaling_factor
        return Posterior(latent, torch.zeros_like(latent))

    @property
    def factor(self) -> int:
        return self.vae.spatial_compression_ratio

    @property
    def resolution(self) -> int:
        return self.denoiser.config.sample_size * self.factor


def _frames(tokenizer: PreTrainedTokenizerBase) -> tuple[Frame, Frame]:
    """As many tokens behind the instruction as without it, but for one that goes with the prompt's first and the start."""
    from diffusers import SanaPipeline

    lines = inspect.signature(SanaPipeline.__call__).parameters["complex_human_instruction"].default
    instruction = "\n".join(lines)
    context = len(tokenizer.encode(instruction)) + HEARD - 2
    return Frame(context, before=instruction, lower=True), Frame(HEARD, lower=True)


def _texts() -> dict[str, Text]:
    from ti_pipeline.generators.loading import Text

    return {ONLY: Text("tokenizer", "text_encoder", "Gemma2Model", "GemmaTokenizer", frames=_frames)}


def _load(source: Source, settings: params.Generator) -> LatentFlow:
    from ti_pipeline.generators.loading import load_latent_model

    return load_latent_model(Sana, _texts(), _SINGLE, source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import text_readers

    return text_readers(_texts(), source, _SINGLE)


def _configure(path: Path, folder: Path) -> None:
    raise lacks_configuration(path, "a SANA checkpoint without its configuration", PARTS)


_SINGLE = SingleFile(MODEL_INDEX, _configure)


def _check(folder: Path) -> None:
    transformer, vae, text = (part_config(folder, part) for part in ("transformer", "vae", "text_encoder"))
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], vae.get("latent_channels", 32))
    check_text_width(folder, transformer.get("caption_channels", 2304), text.get("hidden_size", 2304))


FAMILY = Family(
    name="SANA",
    pipelines=frozenset({"SanaPipeline"}),
    parts=PARTS,
    weights=("text_encoder", "transformer", "vae"),
    told=lambda shapes: False,
    check=_check,
    load=_load,
    readers=_readers,
    denoiser="SanaTransformer2DModel",
    tables={ONLY: "text_encoder"},
)
