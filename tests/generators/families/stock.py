"""How the stock pipeline of each family is asked for what ours says: what it hears, says, draws, and what its latents are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, FluxPipeline, QwenImagePipeline

from tests.generators.tiny_flow import write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.generators.tiny_stable_diffusion import load_tiny
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.latent_model import MASK

STEPS, SCALE = 4, 4.0
CALL = {"num_inference_steps": STEPS, "output_type": "np"}


@dataclass
class Stock:
    """A tiny model of a family. `tables` are those that its learning encoders have in the stock pipeline; `solver` is our name for the
    pipeline's own, `density` that of the noise levels in the published training script, which `shifted` moves; `none` is the pipeline's
    negative prompt where we have none, `unguided` the strength of guidance that is none; it goes `without` some parts."""

    folder: Path
    family: str
    size: tuple[int, int, int] = (16, 8, 8)
    solver: str = "euler"
    density: str = "uniform"
    none: str | None = None
    unguided: float = 1.0
    tables: Mapping[str, str] = field(default_factory=lambda: {"text": "text_encoder"})
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.generator: Generator = load_tiny(self.folder, encoders=list(self.tables))
        self.pipe: Any = DiffusionPipeline.from_pretrained(self.folder, **dict.fromkeys(self.without))
        self.pipe.set_progress_bar_config(disable=True)

    def table(self, encoder: str) -> torch.Tensor:
        return getattr(self.pipe, self.tables[encoder]).get_input_embeddings().weight

    def heard(self, prompt: str) -> dict[str, torch.Tensor]:
        """What the denoiser hears, by our names for it, without padding."""
        raise NotImplementedError

    def velocity(self, noisy: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        """What the transformer says of the way to the noise, as the published training script asks it; differentiable."""
        raise NotImplementedError

    def draw(self, prompt: str, negative: str, latents: torch.Tensor, scale: float = SCALE, **more: str) -> np.ndarray:
        how = {"guidance_scale": scale, "latents": latents, **self.edges(latents), **self.negative(negative)}
        return self.pipe(prompt, **how, **more, **CALL).images[0]

    def edges(self, latents: torch.Tensor) -> dict[str, int]:
        """Of a picture, in pixels."""
        factor = 64 // self.size[-1]
        return {"height": factor * latents.shape[-2], "width": factor * latents.shape[-1]}

    def negative(self, text: str) -> dict[str, str]:
        return {"negative_prompt": said} if (said := text or self.none) is not None else {}

    def shifted(self, levels: torch.Tensor, tokens: int) -> torch.Tensor:
        """By the schedule's shift, of pictures of so many tokens."""
        shift = self.pipe.scheduler.config.shift
        return shift * levels / (1 + (shift - 1) * levels)

    def latent(self, pixels: torch.Tensor) -> torch.Tensor:
        vae = self.pipe.vae
        return (vae.encode(pixels).latent_dist.mode() - vae.config.shift_factor) * vae.config.scaling_factor

    def pixels(self, latent: torch.Tensor) -> torch.Tensor:
        vae = self.pipe.vae
        return vae.decode(latent / vae.config.scaling_factor + vae.config.shift_factor).sample


class StableDiffusion3(Stock):
    def _encoded(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, _, pooled, _ = self.pipe.encode_prompt(prompt, prompt, prompt, do_classifier_free_guidance=False)
        return hidden, pooled

    def heard(self, prompt: str) -> dict[str, torch.Tensor]:
        return dict(zip(("hidden", "pooled"), self._encoded(prompt), strict=True))

    def velocity(self, noisy: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        hidden, pooled = (each.expand(len(noisy), *each.shape[1:]) for each in self._encoded(prompt))
        return self.pipe.transformer(noisy, hidden, pooled, 1000 * sigma).sample


class Flux(Stock):
    def _encoded(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, pooled, _ = self.pipe.encode_prompt(prompt, prompt)
        return hidden, pooled

    def heard(self, prompt: str) -> dict[str, torch.Tensor]:
        return dict(zip(("hidden", "pooled"), self._encoded(prompt), strict=True))

    def velocity(self, noisy: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        hidden, pooled = (each.expand(len(noisy), *each.shape[1:]) for each in self._encoded(prompt))
        height, width = noisy.shape[-2:]
        said = self.pipe.transformer(
            FluxPipeline._pack_latents(noisy, *noisy.shape), hidden, pooled, sigma,
            img_ids=FluxPipeline._prepare_latent_image_ids(len(noisy), height // 2, width // 2, "cpu", torch.float32),
            txt_ids=torch.zeros(512, 3), guidance=torch.ones(len(noisy)) if self.pipe.transformer.config.guidance_embeds else None,
        ).sample  # fmt: skip
        return FluxPipeline._unpack_latents(said, 8 * height, 8 * width, 8)

    def draw(self, prompt: str, negative: str, latents: torch.Tensor, scale: float = SCALE, **more: str) -> np.ndarray:
        tokens = FluxPipeline._pack_latents(latents, *latents.shape)
        return self.pipe(prompt, latents=tokens, guidance_scale=scale, **self.edges(latents), **more, **CALL).images[0]

    def shifted(self, levels: torch.Tensor, tokens: int) -> torch.Tensor:
        """The script has no shift where it depends on the picture; ours is the one that its pipeline draws such a picture with."""
        config = self.pipe.scheduler.config
        mu = 0.5 + (1.15 - 0.5) / (4096 - 256) * (tokens - 256)
        shift = float(np.exp(mu)) if config.use_dynamic_shifting else 1.0
        return shift * levels / (1 + (shift - 1) * levels)


class Sana(Stock):
    def _encoded(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        """With the instruction of the pipeline's call."""
        from tests.generators.tiny_language import INSTRUCTION

        hidden, mask, *_ = self.pipe.encode_prompt(prompt, False, device="cpu", complex_human_instruction=INSTRUCTION.split("\n"))
        return hidden, mask

    def heard(self, prompt: str) -> dict[str, torch.Tensor]:
        hidden, mask = self._encoded(prompt)
        return {"hidden": hidden[mask.bool()][None]}

    def velocity(self, noisy: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        hidden, mask = (each.expand(len(noisy), *each.shape[1:]) for each in self._encoded(prompt))
        return self.pipe.transformer(noisy, encoder_hidden_states=hidden, encoder_attention_mask=mask, timestep=1000 * sigma).sample

    def draw(self, prompt: str, negative: str, latents: torch.Tensor, scale: float = SCALE, **more: str) -> np.ndarray:
        how = {"use_resolution_binning": False, **self.edges(latents)}
        return self.pipe(prompt, guidance_scale=scale, latents=latents, **how, **self.negative(negative), **more, **CALL).images[0]

    def shifted(self, levels: torch.Tensor, tokens: int) -> torch.Tensor:
        """The script's scheduler does not know that its shift is called `flow_shift` in SANA's schedules; its authors' training does."""
        shift = FlowMatchEulerDiscreteScheduler.from_config(self.pipe.scheduler.config, shift=self.pipe.scheduler.config.flow_shift).shift
        return shift * levels / (1 + (shift - 1) * levels)

    def latent(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.pipe.vae.encode(pixels).latent * self.pipe.vae.config.scaling_factor

    def pixels(self, latent: torch.Tensor) -> torch.Tensor:
        return self.pipe.vae.decode(latent / self.pipe.vae.config.scaling_factor).sample


class ZImage(Stock):
    def heard(self, prompt: str) -> dict[str, torch.Tensor]:
        (hidden,), _ = self.pipe.encode_prompt(prompt, "cpu", do_classifier_free_guidance=False)
        return {"hidden": hidden[None]}

    def velocity(self, noisy: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        heard = list(self.heard(prompt)["hidden"]) * len(noisy)
        said = self.pipe.transformer(list(noisy.unsqueeze(2).unbind(dim=0)), (1000 - 1000 * sigma) / 1000, heard, return_dict=False)[0]
        return -torch.stack(said, dim=0).squeeze(2)


class QwenImage(Stock):
    def heard(self, prompt: str) -> dict[str, torch.Tensor]:
        hidden, mask = self.pipe.encode_prompt(prompt, "cpu")
        assert mask is None
        return {"hidden": hidden}

    def velocity(self, noisy: torch.Tensor, sigma: torch.Tensor, prompt: str) -> torch.Tensor:
        heard, (count, _, height, width) = self.heard(prompt)["hidden"], noisy.shape
        said = self.pipe.transformer(
            hidden_states=QwenImagePipeline._pack_latents(noisy, *noisy.shape), encoder_hidden_states=heard.expand(count, -1, -1),
            encoder_hidden_states_mask=None, timestep=1000 * sigma / 1000, return_dict=False,
            img_shapes=[(1, height // 2, width // 2)] * count,
        )[0]  # fmt: skip
        return QwenImagePipeline._unpack_latents(said, 8 * height, 8 * width, 8)[:, :, 0]

    def draw(self, prompt: str, negative: str, latents: torch.Tensor, scale: float = SCALE, **more: str) -> np.ndarray:
        tokens = QwenImagePipeline._pack_latents(latents, *latents.shape)
        said = self.negative(negative) | more
        return self.pipe(prompt, latents=tokens, true_cfg_scale=scale, **self.edges(latents), **said, **CALL).images[0]

    def shifted(self, levels: torch.Tensor, tokens: int) -> torch.Tensor:
        """The script's schedule shifts by the size of the picture, of which nobody tells it."""
        return levels

    @property
    def _scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        config = self.pipe.vae.config
        mean, std = (torch.tensor(of).view(1, config.z_dim, 1, 1, 1) for of in (config.latents_mean, config.latents_std))
        return mean, std

    def latent(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = self._scale
        return ((self.pipe.vae.encode(pixels.unsqueeze(2)).latent_dist.mode() - mean) * (1 / std))[:, :, 0]

    def pixels(self, latent: torch.Tensor) -> torch.Tensor:
        mean, std = self._scale
        return self.pipe.vae.decode(latent.unsqueeze(2) / (1 / std) + mean, return_dict=False)[0][:, :, 0]


CLIPS = {"clip_l": "text_encoder", "clip_g": "text_encoder_2"}
STOCK: dict[str, Callable[[Path], Stock]] = {
    "sd3": lambda folder: StableDiffusion3(
        write_stable_diffusion_3(folder), "Stable Diffusion 3", density="logit-normal", tables={**CLIPS, "t5": "text_encoder_3"}
    ),
    "sd3-without-t5": lambda folder: StableDiffusion3(
        write_stable_diffusion_3(folder, False),
        "Stable Diffusion 3",
        density="logit-normal",
        tables=CLIPS,
        without=("text_encoder_3", "tokenizer_3"),
    ),  # fmt: skip
    "flux-dev": lambda folder: Flux(write_flux(folder), "FLUX.1", tables={"clip_l": "text_encoder", "t5": "text_encoder_2"}),
    "flux-schnell": lambda folder: Flux(write_flux(folder, False), "FLUX.1", tables={"clip_l": "text_encoder", "t5": "text_encoder_2"}),
    "sana": lambda folder: Sana(write_sana(folder), "SANA", (32, 2, 2), solver="dpmsolver++"),
    "z-image": lambda folder: ZImage(write_z_image(folder), "Z-Image", unguided=0.0),
    "qwen-image": lambda folder: QwenImage(write_qwen_image(folder), "Qwen-Image", none=" "),
}


def without_padding(parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parts of a Condition of one prompt, as `heard` has them."""
    if MASK not in parts:
        return dict(parts)
    return {"hidden": parts["hidden"][parts[MASK]][None]}
