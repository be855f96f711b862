"""Qwen-Image: a transformer that hears the language model of a Qwen2.5-VL, over the latents of a VAE for moving pictures."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ti_pipeline.generators.checkpoint import blocks, denoiser_shapes, tensor_shapes
from ti_pipeline.generators.configuration import published, write_parts
from ti_pipeline.generators.families.flux import packed, unpacked
from ti_pipeline.generators.generator import Condition, Ids, Posterior, Rows
from ti_pipeline.generators.language_model import LanguageModel, needed
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.latent_model import HIDDEN, MASK
from ti_pipeline.generators.reader import Frame
from ti_pipeline.generators.refusals import check_channels, check_text_width, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.model_files import Shapes

BEFORE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:<|im_end|>\n<|im_start|>user\n"
)
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
DROPPED, HEARD = 34, 512  # tokens of BEFORE, which the transformer does not hear, and as many as it hears of what follows
LATENTS = 128  # along the edge of a picture, where a model says nothing else
VAE_IN_USE = Lock()  # it keeps the frames before in itself while it reads or writes one
MODEL_INDEX = {
    "_class_name": "QwenImagePipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen2_5_VLForConditionalGeneration"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "QwenImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKLQwenImage"],
}


class QwenImage(LatentFlow):
    """Wu et al. 2025, arXiv 2508.02324. Four neighbouring latents are one token of the transformer; a picture is one frame."""

    DENOISER = ("transformer", "QwenImageTransformer2DModel")
    VAE = ("vae", "AutoencoderKLQwenImage")
    SPOKEN = ()

    def training_shift(self, tokens: int) -> float:
        """None: the schedule shifts by the size of what is drawn, and not in the published training."""
        return 1.0

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        hidden, mask = self.encoders[ONLY].read_masked(ids[ONLY], rows[ONLY] if rows else None)
        return Condition({HIDDEN: hidden[:, DROPPED:], MASK: mask[:, DROPPED:]})

    def unconditional(self) -> Condition:
        """The stock pipeline does without guidance when there is no negative prompt; its authors' way to say nothing is a space."""
        return self.condition({ONLY: self.encoders[ONLY].tokenise([" "], {})}, None)

    def contrasted(self, said: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
        """Classifier-free guidance that leaves each token as long as it is under the prompt alone."""
        height, width = said.shape[-2:]
        said, guided = packed(said), packed(super().contrasted(said, negative, scale))
        return unpacked(guided * (said.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True)), height, width)

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        height, width = x.shape[-2:]
        said = self.denoiser(
            packed(x.to(self.dtype)),
            condition.parts[HIDDEN].to(self.dtype),
            condition.parts[MASK],
            t.to(self.device, self.dtype).expand(len(x)) / 1000,
            img_shapes=[[(1, height // 2, width // 2)]] * len(x),
        ).sample
        return unpacked(said, height, width)

    def sigmas(self, steps: int) -> list[float]:
        return np.linspace(1.0, 1 / steps, steps).tolist()

    def posterior(self, pixels: torch.Tensor) -> Posterior:
        mean, std = self._scale
        with VAE_IN_USE:
            found = self.vae.encode(pixels.to(self.device)[:, :, None]).latent_dist
        return Posterior((found.mean[:, :, 0] - mean) / std, found.std[:, :, 0] / std)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        mean, std = self._scale
        latents = latents.to(next(self.vae.parameters()).dtype) * std + mean
        with VAE_IN_USE:
            return self.vae.decode(latents[:, :, None]).sample[:, :, 0].float()

    @property
    def _scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the channels of its VAE's latents, [c, 1, 1]."""
        config = self.vae.config
        mean, std = (torch.tensor(of, device=self.device)[:, None, None] for of in (config.latents_mean, config.latents_std))
        return mean, std

    @property
    def factor(self) -> int:
        return self.vae.spatial_compression_ratio

    @property
    def resolution(self) -> int:
        return self.vae.config.get("sample_size") or LATENTS * self.factor

    @property
    def channels(self) -> int:
        return self.vae.config.z_dim


def _frames(tokenizer: PreTrainedTokenizerBase) -> tuple[Frame, None]:
    return Frame(DROPPED + HEARD, BEFORE, AFTER), None


def _configure(path: Path, folder: Path) -> None:
    parts = published("qwen_image")
    parts["transformer"] |= transformer_config(denoiser_shapes(tensor_shapes(path)))
    write_parts(parts, folder)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    width, head = shapes["img_in.weight"][0], shapes["transformer_blocks.0.attn.norm_q.weight"][0]
    return {
        "num_layers": blocks(shapes, "transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": shapes["txt_in.weight"][1],
    }


_SINGLE = SingleFile(
    MODEL_INDEX,
    _configure,
    {"text_encoder": ("text_encoders.qwen25_7b.transformer.",)},
    needed("Qwen2.5-VL 7B"),
)


def _told(shapes: Shapes) -> bool:
    found = denoiser_shapes(shapes)
    return "transformer_blocks.0.img_mod.1.weight" in found and "txt_norm.weight" in found


def _check_file(path: Path, shapes: Shapes) -> None:
    found = denoiser_shapes(shapes)
    if "time_text_embed.addition_t_embedding.weight" in found or "__index_timestep_zero__" in found:
        raise refusal(path, "a Qwen-Image that works on a picture that is there", "Give a Qwen-Image that draws from text.")
    check_channels(path, found["img_in.weight"][1] // 4, 16)


def _check(folder: Path) -> None:
    transformer, vae, text = (part_config(folder, part) for part in ("transformer", "vae", "text_encoder"))
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], 4 * vae.get("z_dim", 16))
    check_text_width(folder, transformer.get("joint_attention_dim", 3584), text.get("text_config", text).get("hidden_size", 3584))


# The language model reads; the eyes beside it are not kept.
FAMILY = LanguageModel(QwenImage, _SINGLE, _frames, inner="model.language_model").family("Qwen-Image", _told, _check, _check_file)
