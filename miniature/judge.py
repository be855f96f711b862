"""The judge: a small RegNet that knows things and styles apart. It never orders candidates, it only evaluates.

A cosine classifier with an additive margin (CosFace, Wang et al. 2018, arXiv 1801.09414) over the trained
things, with a second head for styles: the space it leaves behind holds pictures of unseen things as well.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import RegNetConfig, RegNetModel

from miniature.clip import jitter
from miniature.pictures import STYLES, Artwork, compose, things
from miniature.store import Checkpoint

DRAWN = (*STYLES, "noto-v1")  # one more team's hand than the generator knows
SCALE, MARGIN = 16.0, 0.15


def build() -> RegNetModel:
    torch.manual_seed(41)
    return RegNetModel(
        RegNetConfig(
            embedding_size=32,
            hidden_sizes=[48, 96, 192, 320],
            depths=[1, 1, 2, 1],
            groups_width=16,
            layer_type="y",
        )
    )


class Heads(nn.Module):
    """The classifiers of training; what ships is the model without them."""

    def __init__(self, width: int, names: int):
        super().__init__()
        self.thing, self.style = nn.Parameter(torch.randn(names, width)), nn.Linear(width, len(DRAWN))

    def forward(self, features: torch.Tensor, thing: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        cosine = F.normalize(features, dim=-1) @ F.normalize(self.thing, dim=-1).T
        cosine = cosine - MARGIN * F.one_hot(thing, cosine.shape[1])
        return F.cross_entropy(SCALE * cosine, thing) + F.cross_entropy(self.style(features), style)


def batch(art: Artwork, names: list[str], size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures on any colour `[size, 3, 64, 64]` in [-1, 1], with the numbers of their thing and style."""
    out, labels = [], []
    while len(out) < size:
        thing, style = int(rng.integers(len(names))), int(rng.integers(len(DRAWN)))
        if (rgba := art[names[thing], DRAWN[style]]) is not None:
            picture = compose(jitter(rgba, rng), tuple(rng.integers(0, 256, 3))).astype(np.float32) / 127.5 - 1
            if rng.random() < 0.3:  # what a decoder leaves behind is no reason to call it another thing
                picture += rng.normal(0, rng.uniform(0, 0.12), picture.shape).astype(np.float32)
            out.append(picture)
            labels.append((thing, style))
    thing, style = torch.tensor(labels).T
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).clamp(-1, 1), thing, style


def train(art: Artwork, checkpoint: Path, seconds: float, device: str, start: Path | None = None, size: int = 96) -> RegNetModel:
    names = things()["core"] + things()["more"]
    model = build() if start is None else RegNetModel.from_pretrained(start / "judge", dtype=torch.float32)
    model = model.to(device)
    heads = Heads(model.config.hidden_sizes[-1], len(names)).to(device)
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], 2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    state = Checkpoint(checkpoint, model=model, heads=heads, optimizer=optimizer)
    rng = np.random.default_rng(41 + state.step)
    model.train()
    while state.seconds < seconds:
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (state.step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(1, state.seconds / seconds)))
        pictures, thing, style = (t.to(device) for t in batch(art, names, size, rng))
        loss = heads(model(pictures).pooler_output.flatten(1), thing, style)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), *heads.parameters()], 1.0)
        optimizer.step()
        state.tick(time.monotonic() - began, loss=loss)
    state.save()
    return model.eval()


def export(model: RegNetModel, folder: Path) -> None:
    """A folder that `transformers.AutoModel` loads, weights in float16."""
    model.half().save_pretrained(folder)
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
