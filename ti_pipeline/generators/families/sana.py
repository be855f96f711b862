"""SANA: a transformer with linear attention over the latents of a deep compression autoencoder, which hears a Gemma 2.

A prompt is read behind an instruction to describe it in full ("complex human instruction", Xie et al. 2024, section 3.1), a negative
prompt is not.
"""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ti_pipeline.generators.checkpoint import blocks, denoiser_shapes, tensor_shapes
from ti_pipeline.generators.configuration import SCHEDULER, published, write_parts
from ti_pipeline.generators.generator import Condition, Ids, Posterior, Rows
from ti_pipeline.generators.language_model import LanguageModel, needed
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.latent_model import HIDDEN, MASK
from ti_pipeline.generators.reader import Frame
from ti_pipeline.generators.refusals import check_channels, check_text_width, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile, beside
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.model_files import Shapes

HEARD = 300  # tokens: the first, and the last 299 of all that are read
HEAD = 32  # numbers of a head of its self-attention
CROSS_HEADS = {1152: 16, 2240: 20}  # heads of its cross-attention by its width: 0.6 and 1.6 billion weights
PLACES, EDGE = "pos_embed", 32  # the tensor with a row for each latent, and latents of an edge where a file has none
WIDER = {64: {"interpolation_scale": 1.0}, 128: {"interpolation_scale": 2.0}}  # by that edge: those for 2048 and 4096 pixels
WIDEST_SHIFT = 6.0  # of the flow at 4096 pixels
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


def _configure(path: Path, folder: Path) -> None:
    shapes, parts = denoiser_shapes(tensor_shapes(path)), published("sana")
    if shapes["x_embedder.proj.weight"][0] in CROSS_HEADS:
        parts["transformer"] |= transformer_config(shapes)
    elif not (own := beside(path, "transformer") / "config.json").is_file():
        raise refusal(path, "a SANA of another size than the published ones", f"Put the config.json of its transformer at {own}.")
    if parts["transformer"]["sample_size"] == max(WIDER):
        parts[SCHEDULER]["flow_shift"] = WIDEST_SHIFT
    write_parts(parts, folder)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """Of a transformer by its tensors: what those of 0.6 and 1.6 billion weights, for 512 to 4096 pixels, differ in."""
    width, channels = shapes["x_embedder.proj.weight"][:2]
    heads, edge = CROSS_HEADS[width], math.isqrt(shapes[PLACES][1]) if PLACES in shapes else EDGE
    return {
        "in_channels": channels,
        "num_layers": blocks(shapes, "blocks"),
        "num_attention_heads": width // HEAD,
        "attention_head_dim": HEAD,
        "num_cross_attention_heads": heads,
        "cross_attention_head_dim": width // heads,
        "cross_attention_dim": width,
        "caption_channels": shapes["y_embedder.y_proj.fc1.weight"][1],
        "sample_size": edge,
        **WIDER.get(edge, {}),
    }


_SINGLE = SingleFile(
    MODEL_INDEX,
    _configure,
    {"text_encoder": ("text_encoders.gemma2_2b.transformer.",)},
    needed("Gemma 2 2B"),
    idle={"transformer": (PLACES, "y_embedder.y_embedding")},
)


def _told(shapes: Shapes) -> bool:
    found = denoiser_shapes(shapes)
    return "attention_y_norm.weight" in found and "x_embedder.proj.weight" in found


def _check_file(path: Path, shapes: Shapes) -> None:
    found = denoiser_shapes(shapes)
    if "cfg_embedder.mlp.0.weight" in found:
        raise refusal(path, "a SANA-Sprint, which this does not load", "Give a SANA.")
    if "blocks.0.attn.q_norm.weight" in found:
        raise refusal(path, "a SANA 1.5, of which diffusers reads no single file", "Give its folder in diffusers' layout.")
    check_channels(path, found["x_embedder.proj.weight"][1], 32)


def _check(folder: Path) -> None:
    transformer, vae, text = (part_config(folder, part) for part in ("transformer", "vae", "text_encoder"))
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], vae.get("latent_channels", 32))
    check_text_width(folder, transformer.get("caption_channels", 2304), text.get("hidden_size", 2304))


FAMILY = LanguageModel(Sana, _SINGLE, _frames).family("SANA", _told, _check, _check_file)
