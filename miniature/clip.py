"""Two small open_clip models, trained apart: one lends its text tower to the generator, one ranks.

Contrastive learning of pictures and their captions (Radford et al. 2021, arXiv 2103.00020).
"""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from miniature import captions, tokens
from miniature.pictures import BACKGROUNDS, NAMED, Artwork, compose, things
from miniature.store import Checkpoint

MEAN = STD = (0.5, 0.5, 0.5)
WEIGHTS = "open_clip_model.safetensors"


@dataclass(frozen=True)
class Design:
    """Sizes of one CLIP and the seed that it is made with."""

    seed: int
    width: int
    text_width: int
    text_layers: int
    text_heads: int
    embed: int = 256
    image_size: int = 64

    def config(self, vocabulary: int) -> dict:
        return {
            "embed_dim": self.embed,
            "vision_cfg": {"image_size": self.image_size, "layers": [1, 1, 1, 1], "width": self.width, "head_width": 64},
            "text_cfg": {
                "context_length": tokens.CONTEXT,
                "vocab_size": vocabulary,
                "hf_tokenizer_name": "clip",
                "width": self.text_width,
                "heads": self.text_heads,
                "layers": self.text_layers,
            },
        }


TEACHER = Design(seed=11, width=32, text_width=256, text_layers=2, text_heads=4, image_size=32)
RANKER = Design(seed=23, width=32, text_width=192, text_layers=2, text_heads=4)


def build(design: Design, vocabulary: int) -> CLIP:
    torch.manual_seed(design.seed)
    config = design.config(vocabulary)
    return CLIP(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"]))


def jitter(rgba: np.ndarray, rng: np.random.Generator, most: int = 5) -> np.ndarray:
    """The artwork moved by a few pixels."""
    return np.roll(rgba, rng.integers(-most, most + 1, 2), (0, 1))


class CaptionedPictures:
    """Batches of pictures and captions; no two pictures of a batch show the same thing in the same way."""

    def __init__(self, art: Artwork, seed: int, core: float = 0.6):
        self.art, self.rng, self.words = art, np.random.default_rng(seed), random.Random(seed)
        self.core, self.more, self.share = things()["core"], things()["more"], core

    def one(self) -> tuple[np.ndarray, str]:
        while True:
            names = self.core if self.rng.random() < self.share else self.more
            thing = names[self.rng.integers(len(names))]
            style = NAMED[self.rng.integers(len(NAMED))]
            if (rgba := self.art[thing, style]) is not None:
                break
        background = list(BACKGROUNDS)[self.rng.integers(len(BACKGROUNDS))]
        caption = (
            captions.full(thing, style, background) if self.rng.random() < 0.5 else captions.draw(self.words, thing, style, background)
        )
        shade = np.clip(np.array(BACKGROUNDS[background]) + self.rng.integers(-10, 11, 3), 0, 255)
        return compose(jitter(rgba, self.rng), tuple(shade)), caption

    def batch(self, size: int) -> tuple[torch.Tensor, list[str]]:
        """Pictures in [-1, 1] `[size, 3, 64, 64]` and their captions."""
        pictures, texts = zip(*(self.one() for _ in range(size)), strict=True)
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1, list(texts)


def train(design: Design, art: Artwork, checkpoint: Path, seconds: float, device: str, start: Path | None = None, batch: int = 128) -> CLIP:
    """Train for `seconds` of computing, over any number of interruptions; without a checkpoint from the ranker in `start`, a package."""
    tokenizer = tokens.train(checkpoint.parent / "tokenizer")
    model = build(design, len(tokenizer))
    if start is not None:
        model.load_state_dict(load_file(start / "ranker" / WEIGHTS))
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, betas=(0.9, 0.98), weight_decay=0.05)
    state = Checkpoint(checkpoint, model=model, optimizer=optimizer)
    data = CaptionedPictures(art, design.seed + state.step)
    model.train()
    while state.seconds < seconds:
        began = time.monotonic()
        progress = state.seconds / seconds
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1, (state.step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1)))
        pictures, texts = data.batch(batch)
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=tokens.CONTEXT, return_tensors="pt").input_ids
        image, text, scale = model(F.interpolate(pictures.to(device), design.image_size, mode="area"), ids.to(device))
        logits = scale * image @ text.T
        same = torch.tensor([[a == b for b in texts] for a in texts], device=device)  # equal captions are no negatives
        logits = logits.masked_fill(same & ~torch.eye(batch, dtype=torch.bool, device=device), -1e4)
        target = torch.arange(batch, device=device)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        state.tick(time.monotonic() - began, loss=loss)
    state.save()
    return model.eval()


def export(design: Design, model: CLIP, tokenizer, folder: Path) -> None:
    """A folder that open_clip loads as `local-dir:FOLDER`, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config = {
        "model_cfg": design.config(len(tokenizer)),
        "preprocess_cfg": {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {
        name: t.detach().to("cpu", torch.float16 if t.is_floating_point() else t.dtype).contiguous()
        for name, t in model.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
