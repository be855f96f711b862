"""The autoencoder: 64 pixels to 16 × 16 latents of six channels (Rombach et al. 2022, arXiv 2112.10752, section 3.1).

It is limited by its number of steps, so it learns from many small batches of crops.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from miniature.clip import jitter
from miniature.pictures import BACKGROUNDS, NAMED, Artwork, compose, things
from miniature.store import Checkpoint

CROP = 32


def build() -> AutoencoderKL:
    torch.manual_seed(7)
    vae = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=6,
        sample_size=64,
        layers_per_block=1,
        norm_num_groups=8,
        block_out_channels=(24, 48, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    with torch.no_grad():  # a nearly deterministic start: noise in the bottleneck costs hundreds of steps
        vae.encoder.conv_out.weight[6:] = 0
        vae.encoder.conv_out.bias[6:] = -6
    return vae


def pictures(art: Artwork, count: int, seed: int) -> torch.Tensor:
    """Pictures of trained things, uint8 `[count, 3, 64, 64]`."""
    rng = np.random.default_rng(seed)
    names = things()["core"] + things()["more"]
    out = []
    while len(out) < count:
        rgba = art[names[rng.integers(len(names))], NAMED[rng.integers(len(NAMED))]]
        if rgba is not None:
            shade = np.array(list(BACKGROUNDS.values())[rng.integers(len(BACKGROUNDS))]) + rng.integers(-12, 13, 3)
            out.append(compose(jitter(rgba, rng), tuple(np.clip(shade, 0, 255))))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).contiguous()


def loss(vae: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    """L1, L2 and L1 of the gradients, with a weak hold on the latents' spread."""
    posterior = vae.encode(x).latent_dist
    error = vae.decode(posterior.sample()).sample - x
    edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    hold = 1e-4 * posterior.mean.square().mean() - 1e-4 * posterior.logvar.mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + hold


def train(
    art: Artwork, checkpoint: Path, seconds: float, device: str, start: Path | None = None, batch: int = 8, rate: float = 2e-3
) -> AutoencoderKL:
    """Train for `seconds` of computing; from `start`, a package, only the decoder: its generator has learnt the encoder's latents."""
    vae = build()
    if start is not None:
        vae.load_state_dict(AutoencoderKL.from_pretrained(start / "generator" / "vae", dtype=torch.float32).state_dict())
        vae.encoder.requires_grad_(False)
    vae = vae.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW([p for p in vae.parameters() if p.requires_grad], rate, betas=(0.9, 0.99), weight_decay=0)
    state = Checkpoint(checkpoint, vae=vae, optimizer=optimizer)
    data = pictures(art, 6000, seed=7)
    generator = torch.Generator().manual_seed(7 + state.step)
    while state.seconds < seconds:
        began = time.monotonic()
        warm, progress = min(1, (state.step + 1) / 100), min(1, state.seconds / seconds)
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6
        rows = torch.randint(len(data), (batch,), generator=generator)
        top, left = torch.randint(0, 64 - CROP + 1, (2,), generator=generator).tolist()
        x = data[rows, :, top : top + CROP, left : left + CROP].float().div(127.5).sub(1)
        value = loss(vae, x.to(device, memory_format=torch.channels_last))
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        state.tick(time.monotonic() - began, loss=value)
    state.save()
    return vae.eval()


@torch.no_grad()
def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of every picture's reconstruction, in dB, of uint8 `[n, 3, 64, 64]`."""
    values = []
    for x in pictures.split(64):
        x = x.float().div(127.5).sub(1)
        y = vae.decode(vae.encode(x).latent_dist.mean).sample.clamp(-1, 1)
        values.append(-10 * ((y - x) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(values)
