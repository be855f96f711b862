"""Pictures from prompts, and what the judge sees in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from torch.nn import functional as F
from transformers import AutoModel

from miniature.pictures import BACKGROUNDS


def load_pipeline(package: Path) -> StableDiffusionPipeline:
    """The shipped generator in float32, as any user of diffusers loads it."""
    pipe = StableDiffusionPipeline.from_pretrained(package / "generator", dtype=torch.float32, safety_checker=None, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.unet, pipe.text_encoder):
        part.requires_grad_(False)
    return pipe


@torch.no_grad()
def draw(
    pipe: StableDiffusionPipeline, states: torch.Tensor, empty: torch.Tensor, seeds: list[int], steps: int, guidance: float, batch: int = 50
) -> np.ndarray:
    """One picture for each hidden state `[n, context, width]` and seed: uint8 `[n, 64, 64, 3]`."""
    out = []
    for start in range(0, len(states), batch):
        block = states[start : start + batch]
        noise = torch.stack([torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(s)) for s in seeds[start : start + batch]])
        images = pipe(
            prompt_embeds=block,
            negative_prompt_embeds=empty.expand(len(block), -1, -1),
            latents=noise,
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        ).images
        out.append(np.round(images * 255).astype(np.uint8))
    return np.concatenate(out)


class Judge:
    """L2-normalised embeddings `[n, width]` of uint8 pictures `[n, 64, 64, 3]`."""

    def __init__(self, package: Path):
        self.model = AutoModel.from_pretrained(package / "judge", dtype=torch.float32, local_files_only=True).eval()

    @torch.no_grad()
    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        out = []
        for start in range(0, len(pictures), 256):
            x = torch.from_numpy(np.ascontiguousarray(pictures[start : start + 256])).permute(0, 3, 1, 2).float() / 127.5 - 1
            out.append(F.normalize(self.model(x).pooler_output.flatten(1), dim=-1).numpy())
        return np.concatenate(out)


def background_of(picture: np.ndarray) -> str:
    """The name of the palette's colour nearest to the median of the picture's border, two pixels wide."""
    border = np.concatenate(
        [picture[:2].reshape(-1, 3), picture[-2:].reshape(-1, 3), picture[:, :2].reshape(-1, 3), picture[:, -2:].reshape(-1, 3)]
    )
    median = np.median(border, 0)
    return min(BACKGROUNDS, key=lambda name: float(np.square(median - BACKGROUNDS[name]).sum()))


def interval(values, of=1.0, draws: int = 4000, seed: int = 0) -> list[float]:
    """Mean and the ends of its 95 % bootstrap interval; with `of`, a value for each, the mean as a share of the mean of those."""
    values = np.asarray(values, float)
    of = np.broadcast_to(of, values.shape)
    drawn = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    means = values[drawn].mean(1) / of[drawn].mean(1)
    return [round(float(v), 4) for v in (values.mean() / of.mean(), *np.quantile(means, (0.025, 0.975)))]
