"""What the generator learns from: latents of pictures, computed once, and the draws that each step takes of them.

Every picture belongs to a *word*. Words with a name are the things of the fixed lists; the others – invented things, the emoji
and icons of the crowd – can only be asked for by a picture word. A few pictures are in invented styles, which have no name either.
Every picture is also of a *drawing*: what one artist made of a thing, which techniques and backgrounds then change. Many are cut
from two or three that are alike in style and background, so that no two steps ask for the same drawings.
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
from miniature.pictures import ARTISTS, BACKGROUNDS, NAMED, TECHNIQUES, Artwork, compose, stylise, things
from miniature.store import of_another_recipe
from ti_pipeline.files import atomic

COLOURS = list(BACKGROUNDS)
WEIGHTS = {
    **{"noto": 0.17, "fluent": 0.09, "flat": 0.09, "twemoji": 0.1},
    **{"pixel": 0.11, "sketch": 0.08, "sepia": 0.05, "mono": 0.05, "comic": 0.1, "neon": 0.16, "duotone": 0.06},
}
OWN = -1  # the style of an icon: no word says it
INVENTED_STYLES, PICTURES_OF_A_STYLE = 400, 20
INVENTED_THINGS = 3  # for every thing that several artists have drawn
PICTURE_WORD = "@"  # one token that no caption has stands where the picture word goes
UNCONDITIONAL = 0.07
COMPONENTS = 256  # of a drawing, which tell nine tenths of it
OWN_DRAWING = 0.75  # of the picture words of things tell of the drawing that is asked for, the others of several artists' on average
CHIMERAS = 0.6  # of the picture words of things tell of one drawing on this side of a line and of another on that …
MOST_CUTS = 2  # … or, cut again, of three


@dataclass(frozen=True)
class Group:
    """Which share of the samples it has, and how often a name gives way to a picture word."""

    share: float
    pictured: float


GROUPS = {
    "core": Group(0.3, 0.5),
    "more": Group(0.08, 0.8),
    "invented": Group(0.36, 1),
    "icons": Group(0.18, 1),
    "styles": Group(0.08, 0),
}


def pictures(art: Artwork, crowd: Crowd):
    """Every picture to learn from: its artwork, background, and `(group, word, style)`; named words are numbered as in the lists."""
    names, core = things()["core"] + things()["more"], len(things()["core"])
    rng = np.random.default_rng(5)
    group = {name: number for number, name in enumerate(GROUPS)}

    def anywhere() -> str:
        return COLOURS[rng.integers(len(COLOURS))]

    for word, name in enumerate(names):
        for style in NAMED:
            if (rgba := art[name, style]) is not None:
                for ground in COLOURS if word < core else rng.choice(COLOURS, 2, replace=False):
                    yield rgba, ground, (group["core" if word < core else "more"], word, NAMED.index(style))
    word = len(names)
    for drawn, name, as_drawn in [(art, n, False) for n in names] + [(crowd, n, True) for n in crowd.emoji]:
        for variant in range(INVENTED_THINGS):
            change = (lambda rgba: rgba) if as_drawn and not variant else inventions.thing(word)
            base = {artist: drawn[name, artist] for artist in ARTISTS}
            changed = {artist: change(rgba) for artist, rgba in base.items() if rgba is not None}
            if ARTISTS[0] in changed:
                changed |= {style: stylise(changed[ARTISTS[0]], style) for style in TECHNIQUES}
            for style, rgba in changed.items():
                yield rgba, anywhere(), (group["invented"], word, NAMED.index(style))
            word += 1
    for name in crowd.icons:
        rgba = crowd[name, None]
        if rng.random() < 0.5:
            rgba = inventions.thing(word)(rgba)
        for ground in rng.choice(COLOURS, 2, replace=False):
            yield rgba, ground, (group["icons"], word, OWN)
        style = TECHNIQUES[rng.integers(len(TECHNIQUES))]
        yield stylise(rgba, style), anywhere(), (group["icons"], word, NAMED.index(style))
        word += 1
    for number in range(INVENTED_STYLES):
        apply = inventions.style(number)
        for word in rng.choice(core, PICTURES_OF_A_STYLE, replace=False):
            if (rgba := art[names[word], ARTISTS[0]]) is not None:
                yield apply(rgba), anywhere(), (group["styles"], int(word), len(NAMED) + number)


def whitening(latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What makes principal components, each of variance one, of latents `[n, d]`: a matrix `[COMPONENTS, d]` and an offset."""
    x = latents.double()  # the largest have thousands of times the variance of the smallest
    mean = x.mean(0)
    variance, axes = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    matrix = (axes[:, -COMPONENTS:].flip(1) / variance[-COMPONENTS:].flip(0).sqrt()).T
    return matrix.float(), -(matrix @ mean).float()


@torch.no_grad()
def encode(vae: AutoencoderKL, work: Path, device: str) -> dict[str, torch.Tensor]:
    """Computed once: `key` int32 `[n, 5]` (group, word, style, background, drawing), `latent` float16 `[n, 6, 16, 16]`, and those of
    every drawing on white, `drawn` `[drawings, 6, 16, 16]`."""
    path = work / "latents.pt"
    if path.exists():
        data = torch.load(path, weights_only=True)
        if set(data) != {"key", "latent", "drawn"}:
            raise of_another_recipe(path)
        return data
    art, crowd = Artwork(icons.rasterise(work)), Crowd(rasterise(work))
    keys, latents, block, drawing, on_white = [], [], [], {}, []

    def see(seen: list[np.ndarray]) -> torch.Tensor:
        x = torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2).float().div(127.5).sub(1).to(device)
        return vae.encode(x).latent_dist.mean.half().cpu()

    for rgba, ground, (group, word, style) in pictures(art, crowd):
        hand = style if style < len(ARTISTS) else 0 if (word, 0) in drawing else OWN  # a technique is applied to one of the drawings
        if (word, hand) not in drawing:
            drawing[word, hand] = len(drawing)
            on_white.append(compose(rgba, "white"))
        block.append(compose(rgba, ground))
        keys.append((group, word, style, COLOURS.index(ground), drawing[word, hand]))
        if len(block) == 128:
            latents.append(see(block))
            block.clear()
    if block:
        latents.append(see(block))
    drawn = torch.cat([see(on_white[i : i + 128]) for i in range(0, len(on_white), 128)])
    data = {"key": torch.tensor(keys, dtype=torch.int32), "latent": torch.cat(latents), "drawn": drawn}
    with atomic(path) as temporary:
        torch.save(data, temporary)
    return data


@dataclass(frozen=True)
class Batch:
    """Latents `[n, 6, 16, 16]` with their captions, and what the picture words of the captions mean.

    `of_style` says of each picture word, in order, whether it means a style. Those that mean things have a drawing, or several on
    average, `drawn` `[things, 6, 16, 16]`; those that mean styles latents `[m, 6, 16, 16]` of some pictures, `shown`, and the number
    of the style's picture word that each belongs to, `owner`.
    """

    latent: torch.Tensor
    texts: list[str]
    of_style: torch.Tensor
    drawn: torch.Tensor
    shown: torch.Tensor
    owner: torch.Tensor


class Draws:
    """What each step learns from: a picture, a caption of it, sometimes a picture word."""

    def __init__(self, data: dict[str, torch.Tensor], seed: int):
        self.latent, self.drawn, self.key = data["latent"], data["drawn"], data["key"].numpy()
        self.names = things()["core"] + things()["more"]
        self.rng, self.words = np.random.default_rng(seed), random.Random(seed)
        group, word, style, ground, drawing = self.key.T
        weight = np.array([*WEIGHTS.values(), *[0.12] * INVENTED_STYLES, 0.35])[style]  # OWN is the last
        for number, kind in enumerate(GROUPS.values()):
            weight[group == number] *= kind.share / weight[group == number].sum()
        self.cumulative = np.cumsum(weight / weight.sum())
        self.drawings: dict[int, list[int]] = {}  # of a word
        for of, number in np.unique(np.stack([word, drawing]), axis=1).T.tolist():
            self.drawings.setdefault(of, []).append(number)
        self.in_style = {s: np.flatnonzero(style == s) for s in range(len(NAMED), len(NAMED) + INVENTED_STYLES)}
        self.alike = {(s, b): np.flatnonzero((style == s) & (ground == b)) for s in range(OWN, len(NAMED)) for b in range(len(COLOURS))}

    def told(self, word: int, drawing: int, own: bool) -> torch.Tensor:
        """What a picture word tells of, `[6, 16, 16]`: the drawing that is asked for, or several of its thing on average."""
        if own:
            return self.drawn[drawing].float()
        drawings = self.drawings[word]
        of = self.rng.choice(drawings, self.rng.integers(1, len(drawings), endpoint=True), replace=False)
        return self.drawn[of].float().mean(0)

    def side(self) -> torch.Tensor:
        """Which cells of a latent, bool `[16, 16]`, are on this side of a line that goes by its middle."""
        edge = self.drawn.shape[-1]
        y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
        angle = self.rng.uniform(0, 2 * np.pi)
        return torch.from_numpy(np.cos(angle) * x + np.sin(angle) * y > self.rng.normal(0, edge / 8))

    def batch(self, size: int) -> Batch:
        rows = np.minimum(np.searchsorted(self.cumulative, self.rng.random(size)), len(self.cumulative) - 1)
        latent = self.latent[rows].float()
        texts, of_style, drawn, shown, owner = [], [], [], [], []
        for i, row in enumerate(rows):
            group, word, style, ground, drawing = self.key[row].tolist()
            if self.rng.random() < UNCONDITIONAL:
                texts.append("")
                continue
            invented = style >= len(NAMED)
            name = PICTURE_WORD if self.rng.random() < list(GROUPS.values())[group].pictured else self.names[word]
            named_style = PICTURE_WORD if invented else None if style == OWN else NAMED[style]
            texts.append(captions.draw(self.words, name, named_style, COLOURS[ground]))
            if PICTURE_WORD not in texts[-1]:
                continue
            if invented:
                others = [r for r in self.in_style[style] if r != row] or [row]
                seen = self.rng.choice(others, self.rng.integers(1, 5)).tolist()
                owner += [sum(of_style)] * len(seen)
                shown += seen
            else:
                own = self.rng.random() < OWN_DRAWING
                drawn.append(self.told(word, drawing, own))
                if self.rng.random() < CHIMERAS:
                    for other in self.rng.choice(self.alike[style, ground], self.rng.integers(1, MOST_CUTS, endpoint=True)).tolist():
                        here = self.side()
                        drawn[-1] = torch.where(here, drawn[-1], self.told(self.key[other, 1], self.key[other, 4], own))
                        latent[i] = torch.where(here, latent[i], self.latent[other].float())
            of_style.append(invented)
        return Batch(
            latent,
            texts,
            torch.tensor(of_style, dtype=torch.bool),
            torch.stack(drawn) if drawn else self.drawn[:0].float(),
            self.latent[shown].float(),
            torch.tensor(owner, dtype=torch.long),
        )
