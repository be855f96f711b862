"""The judge: a small RegNet that knows things and styles apart. It never orders candidates, it only evaluates.

Two cosine classifiers with an additive margin (CosFace, Wang et al. 2018, arXiv 1801.09414), one over things and one over
the hands that drew them: the space they leave behind holds pictures of unseen things as well.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F
from transformers import RegNetConfig, RegNetModel

from miniature.clip import jitter
from miniature.crowd import Crowd
from miniature.pictures import NAMED, Artwork, compose, things
from miniature.precision import autocast, loads_in_float32
from miniature.store import Checkpoint

HANDS = (*NAMED, "noto-v1")  # one more team's hand than the generator knows
SCALE, MARGIN = 16.0, 0.15
BATCH, WORN = 96, 24  # pictures of a step, and how many of them have been through the autoencoder


def build() -> RegNetModel:
    torch.manual_seed(41)
    return RegNetModel(
        RegNetConfig(
            embedding_size=32,
            hidden_sizes=[64, 128, 256, 384],
            depths=[1, 1, 2, 1],
            groups_width=16,
            layer_type="y",
        )
    )


class Heads(nn.Module):
    """The classifiers of training; what ships is the model without them."""

    def __init__(self, width: int, names: int):
        super().__init__()
        self.thing, self.style = (nn.Parameter(torch.randn(rows, width)) for rows in (names, len(HANDS)))

    def forward(self, features: torch.Tensor, thing: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        return sum(self.loss(features, head, label) for head, label in ((self.thing, thing), (self.style, style)))

    @staticmethod
    def loss(features: torch.Tensor, head: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        cosine = F.normalize(features, dim=-1) @ F.normalize(head, dim=-1).T
        return F.cross_entropy(SCALE * (cosine - MARGIN * F.one_hot(label, cosine.shape[1])), label)


class Pictures:
    """Trained things and the emoji of the crowd in every hand, on any colour, with the numbers of their thing and hand."""

    def __init__(self, art: Artwork, crowd: Crowd, seed: int):
        self.rng = np.random.default_rng(seed)
        things_ = [{h: art[name, h] for h in HANDS} for name in things()["core"] + things()["more"]]
        things_ += [{h: crowd[name, h] for h in NAMED} for name in crowd.emoji]
        self.things = [{HANDS.index(h): rgba for h, rgba in thing.items() if rgba is not None} for thing in things_]

    def one(self) -> tuple[np.ndarray, int, int]:
        thing = int(self.rng.integers(len(self.things)))
        hand = int(self.rng.choice(list(self.things[thing])))
        return compose(jitter(self.things[thing][hand], self.rng), tuple(self.rng.integers(0, 256, 3))), thing, hand

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Pictures in [-1, 1] `[size, 3, 64, 64]`, things and hands `[size]`."""
        pictures, thing, hand = zip(*(self.one() for _ in range(size)), strict=True)
        x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        return x, torch.tensor(thing), torch.tensor(hand)


@torch.no_grad()
def wear(pictures: torch.Tensor, vae: AutoencoderKL, generator: torch.Generator) -> torch.Tensor:
    """Pictures through the autoencoder with noise on their latents: what a generator leaves behind is no other thing or style."""
    latent = vae.encode(pictures).latent_dist.mean
    most = 0.5 * latent.std() * torch.rand(len(latent), 1, 1, 1, generator=generator)
    return vae.decode(latent + most * torch.randn(latent.shape, generator=generator)).sample.clamp(-1, 1)


def move(pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Every picture turned, stretched and enlarged a little."""
    turn, wide, high = (torch.rand(3, len(pictures), generator=generator) - 0.5) * torch.tensor([[0.4], [0.3], [0.3]])
    zero = torch.zeros_like(turn)
    matrix = torch.stack([(1 + wide) * turn.cos(), -turn.sin(), zero, turn.sin(), (1 + high) * turn.cos(), zero], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)


def train(art: Artwork, crowd: Crowd, vae: AutoencoderKL, checkpoint: Path, seconds: float, device: str) -> RegNetModel:
    """Train for `seconds` of computing, over any number of interruptions."""
    model = build().to(device, memory_format=torch.channels_last)
    state = Checkpoint(checkpoint)
    data, generator = Pictures(art, crowd, 41 + state.step), torch.Generator().manual_seed(41 + state.step)
    heads = Heads(model.config.hidden_sizes[-1], len(data.things)).to(device)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], 2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    state = Checkpoint(checkpoint, model=model, heads=heads, optimizer=optimizer)
    if state.seconds < seconds:
        worn, *labels = data.batch(4096)
        worn = torch.cat([wear(block, vae, generator) for block in worn.split(64)])
    model.train()
    while state.seconds < seconds:
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (state.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(1, state.seconds / seconds)))
        rows = torch.randint(len(worn), (WORN,), generator=generator)
        seen = worn[rows], *(label[rows] for label in labels)
        pictures, thing, style = (torch.cat(pair).to(device) for pair in zip(data.batch(BATCH - WORN), seen, strict=True))
        with autocast(device):
            features = model(move(pictures, generator).contiguous(memory_format=torch.channels_last)).pooler_output
        loss = heads(features.flatten(1).float(), thing, style)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *heads.parameters()], 1.0)
        optimizer.step()
        state.tick(time.monotonic() - began, loss=loss)
    state.save()
    return model.eval()


def export(model: RegNetModel, folder: Path) -> None:
    """A folder that `transformers.AutoModel` loads, weights in float16, which load in float32."""
    model.half().save_pretrained(folder)
    loads_in_float32(folder / "config.json")
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": 64, "width": 64},
                "do_normalize": True,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            indent=2,
        )
        + "\n"
    )
