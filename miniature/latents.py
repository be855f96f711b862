"""What the generator learns from: latents of pictures, computed once, and the draws that each step takes of them.

Every picture belongs to a *word*. Words with a name are the things of the fixed lists; the others – invented things, the emoji
and icons of the crowd – can only be asked for by a picture word. A few pictures are in invented styles, which have no name either.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from miniature import captions, icons, inventions
from miniature.crowd import Crowd, rasterise
from miniature.pictures import ARTISTS, BACKGROUNDS, STYLES, Artwork, compose, stylise, things
from ti_pipeline.files import atomic

COLOURS = list(BACKGROUNDS)
WEIGHTS = {"noto": 0.19, "fluent": 0.16, "flat": 0.16, "twemoji": 0.17, "pixel": 0.12, "sketch": 0.08, "sepia": 0.06, "mono": 0.06}
OWN = -1  # the style of an icon: no word says it
INVENTED_STYLES, PICTURES_OF_A_STYLE = 400, 20
INVENTED_THINGS = 3  # for every thing that several artists have drawn
PICTURE_WORD = "@"  # one token that no caption has stands where the picture word goes
UNCONDITIONAL = 0.07


@dataclass(frozen=True)
class Group:
    """Which share of the samples it has, and how often a name gives way to a picture word."""

    share: float
    pictured: float


GROUPS = {
    "core": Group(0.36, 0.35),
    "more": Group(0.07, 0.7),
    "invented": Group(0.34, 1),
    "icons": Group(0.14, 1),
    "styles": Group(0.09, 0),
}


def pictures(art: Artwork, crowd: Crowd):
    """Every picture to learn from: its artwork, background, and `(group, word, style)`; named words are numbered as in the lists."""
    names, core = things()["core"] + things()["more"], len(things()["core"])
    rng = np.random.default_rng(5)
    group = {name: number for number, name in enumerate(GROUPS)}

    def anywhere() -> str:
        return COLOURS[rng.integers(len(COLOURS))]

    for word, name in enumerate(names):
        for style in STYLES:
            if (rgba := art[name, style]) is not None:
                for ground in COLOURS if word < core else rng.choice(COLOURS, 2, replace=False):
                    yield rgba, ground, (group["core" if word < core else "more"], word, STYLES.index(style))
    word = len(names)
    for drawn, name, as_drawn in [(art, n, False) for n in names] + [(crowd, n, True) for n in crowd.emoji]:
        for variant in range(INVENTED_THINGS):
            change = (lambda rgba: rgba) if as_drawn and not variant else inventions.thing(word)
            base = {artist: drawn[name, artist] for artist in ARTISTS}
            changed = {artist: change(rgba) for artist, rgba in base.items() if rgba is not None}
            if ARTISTS[0] in changed:
                changed |= {style: stylise(changed[ARTISTS[0]], style) for style in STYLES if style not in ARTISTS}
            for style, rgba in changed.items():
                yield rgba, anywhere(), (group["invented"], word, STYLES.index(style))
            word += 1
    for name in crowd.icons:
        rgba = crowd[name, None]
        if rng.random() < 0.5:
            rgba = inventions.thing(word)(rgba)
        for ground in rng.choice(COLOURS, 2, replace=False):
            yield rgba, ground, (group["icons"], word, OWN)
        style = STYLES[rng.integers(len(ARTISTS), len(STYLES))]
        yield stylise(rgba, style), anywhere(), (group["icons"], word, STYLES.index(style))
        word += 1
    for number in range(INVENTED_STYLES):
        apply = inventions.style(number)
        for word in rng.choice(core, PICTURES_OF_A_STYLE, replace=False):
            if (rgba := art[names[word], ARTISTS[0]]) is not None:
                yield apply(rgba), anywhere(), (group["styles"], int(word), len(STYLES) + number)


@torch.no_grad()
def encode(vae: AutoencoderKL, work: Path, device: str) -> dict[str, torch.Tensor]:
    """Computed once: `key` int32 `[n, 4]` (group, word, style, background) and `latent` float16 `[n, 6, 16, 16]`."""
    path = work / "latents.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    art, crowd = Artwork(icons.rasterise(work)), Crowd(rasterise(work))
    keys, latents, block = [], [], []

    def flush() -> None:
        x = torch.from_numpy(np.stack(block)).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(device)
        latents.append(vae.encode(x).latent_dist.mean.half().cpu())
        block.clear()

    for rgba, ground, key in pictures(art, crowd):
        block.append(compose(rgba, ground))
        keys.append((*key, COLOURS.index(ground)))
        if len(block) == 128:
            flush()
    if block:
        flush()
    data = {"key": torch.tensor(keys, dtype=torch.int32), "latent": torch.cat(latents)}
    with atomic(path) as temporary:
        torch.save(data, temporary)
    return data


@dataclass(frozen=True)
class Batch:
    """Latents `[n, 6, 16, 16]` with their captions, and what the picture words of the captions, in their order, look like:
    latents `[m, 6, 16, 16]` of other pictures, the number of the picture word each belongs to, and which of them mean a style."""

    latent: torch.Tensor
    texts: list[str]
    shown: torch.Tensor
    owner: torch.Tensor
    of_style: torch.Tensor


class Draws:
    """What each step learns from: a picture, a caption of it, sometimes a picture word."""

    def __init__(self, data: dict[str, torch.Tensor], seed: int):
        self.latent, self.key = data["latent"], data["key"].numpy()
        self.names = things()["core"] + things()["more"]
        self.rng, self.words = np.random.default_rng(seed), random.Random(seed)
        group, word, style, _ = self.key.T
        weight = np.array([*WEIGHTS.values(), *[0.12] * INVENTED_STYLES, 0.35])[style]  # OWN is the last
        for number, kind in enumerate(GROUPS.values()):
            weight[group == number] *= kind.share / weight[group == number].sum()
        self.cumulative = np.cumsum(weight / weight.sum())
        self.showing: dict[tuple[bool, int], list[int]] = {}  # the rows that show a word in an artist's hand, or an invented style
        for row in np.flatnonzero((style < len(ARTISTS)) | (style >= len(STYLES))):
            invented = style[row] >= len(STYLES)
            self.showing.setdefault((bool(invented), int(style[row] if invented else word[row])), []).append(row)

    def batch(self, size: int) -> Batch:
        rows = np.minimum(np.searchsorted(self.cumulative, self.rng.random(size)), len(self.cumulative) - 1)
        texts, shown, owner, of_style = [], [], [], []
        for row in rows:
            group, word, style, ground = self.key[row].tolist()
            if self.rng.random() < UNCONDITIONAL:
                texts.append("")
                continue
            invented = style >= len(STYLES)
            name = PICTURE_WORD if self.rng.random() < list(GROUPS.values())[group].pictured else self.names[word]
            named_style = PICTURE_WORD if invented else None if style == OWN else STYLES[style]
            texts.append(captions.draw(self.words, name, named_style, COLOURS[ground]))
            if PICTURE_WORD in texts[-1]:
                rows_showing = [r for r in self.showing[invented, style if invented else word] if r != row] or [row]
                shown += self.rng.choice(rows_showing, self.rng.integers(1, 5)).tolist()
                owner += [len(of_style)] * (len(shown) - len(owner))
                of_style.append(invented)
        owner, of_style = torch.tensor(owner, dtype=torch.long), torch.tensor(of_style, dtype=torch.bool)
        return Batch(self.latent[rows].float(), texts, self.latent[shown].float(), owner, of_style)
