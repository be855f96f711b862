"""Styles, backgrounds and the pictures themselves: what the generator, the CLIPs and the judge see.

A caption can name a technique or an artist. Techniques change how a drawing looks, whatever it is of; the artists – four teams – drew
every thing anew, each in its own way. So a *style*, which a prompt can give to anything, is a technique or the first artist's plain
drawing; the other artists' names mean something for the things that they have drawn, and no one can say how they would have drawn another.
One more team's drawings (emojione) and one technique (cyanotype) are held out from everything that is trained.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
ARTISTS = ("noto", "fluent", "flat", "twemoji")
TECHNIQUES = ("pixel", "sketch", "sepia", "mono", "comic", "neon", "duotone")
STYLES = (ARTISTS[0], *TECHNIQUES)
NAMED = ARTISTS + TECHNIQUES  # what captions name
HELD_OUT_STYLE = "cyanotype"
HELD_OUT_ARTIST = "emojione"
BACKGROUNDS = {
    "white": (246, 246, 246),
    "gray": (150, 150, 152),
    "yellow": (252, 216, 80),
    "red": (218, 66, 66),
    "green": (112, 190, 104),
    "blue": (84, 146, 232),
    "purple": (146, 96, 204),
    "pink": (248, 170, 204),
}
_TONES = {  # dark, middle and light end of a print
    "sepia": ((46, 24, 10), (158, 108, 62), (246, 228, 196)),
    "mono": ((22, 22, 24), (124, 124, 126), (240, 240, 240)),
    "duotone": ((40, 10, 90), (232, 60, 110), (255, 220, 120)),
    "cyanotype": ((8, 26, 66), (42, 104, 168), (226, 240, 248)),
}


@cache
def things() -> dict:
    """The fixed lists: `core` (drawn well), `more` (seen, never asked for), `held_out` with initializers."""
    return json.loads((HERE / "things.json").read_text())


def _luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114], np.float32)


def toned(rgba: np.ndarray, stops) -> np.ndarray:
    """A print: luminance onto a curve of three colours."""
    grey = _luminance(rgba[..., :3].astype(np.float32))
    rgb = np.stack([np.interp(grey, (0, 128, 255), [stop[c] for stop in stops]) for c in range(3)], -1)
    return np.concatenate([np.round(rgb).astype(np.uint8), rgba[..., 3:]], -1)


def pixel(rgba: np.ndarray, cells: int = 16) -> np.ndarray:
    """Pixel art: one colour a cell, of few, and no half transparent edge."""
    image = rgba.astype(np.float32)
    image[..., :3] *= image[..., 3:] / 255
    edge = rgba.shape[0] // cells
    cell = image.reshape(cells, edge, cells, edge, 4).mean((1, 3))
    alpha = cell[..., 3:]
    rgb = np.where(alpha > 0, cell[..., :3] / np.maximum(alpha / 255, 1e-3), 0)
    rgb = np.clip(np.round(rgb / 36) * 36, 0, 255)
    cell = np.concatenate([rgb, np.where(alpha > 110, 255, 0)], -1)
    return cell.repeat(edge, 0).repeat(edge, 1).astype(np.uint8)


def _soften(image: np.ndarray, times: int = 1) -> np.ndarray:
    """As with a soft nib: lines thinner than a latent cell would be lost in the autoencoder."""
    for axis in (0, 1) * times:
        image = 0.5 * image + 0.25 * (np.roll(image, 1, axis) + np.roll(image, -1, axis))
    return image


def _lines(rgba: np.ndarray) -> np.ndarray:
    """How much of a line is where the drawing or its outline changes: float `[edge, edge, 1]` up to 1."""
    alpha = rgba[..., 3].astype(np.float32) / 255
    planes = [_luminance(rgba[..., :3].astype(np.float32)) * alpha + 255 * (1 - alpha), 255 * (1 - alpha)]
    gradient = sum(np.hypot(*np.gradient(p)) * w for p, w in zip(planes, (1.0, 0.6), strict=True))
    return np.clip((gradient - 14) / 60, 0, 1)[..., None]


def _colour(rgba: np.ndarray, times: int) -> np.ndarray:
    """The drawing's colours run into each other, and over its outline: float `[edge, edge, 3]`."""
    rgb, alpha = rgba[..., :3].astype(np.float32), rgba[..., 3:].astype(np.float32) / 255
    return _soften(rgb * alpha, times) / np.maximum(_soften(alpha, times), 1e-3)


def sketch(rgba: np.ndarray, paper=(252, 252, 252), pen=(52, 52, 52)) -> np.ndarray:
    """A drawing in pen on paper, cut out along its outline."""
    ink = np.clip(1.35 * _soften(_lines(rgba)), 0, 1)
    rgb = np.array(paper, np.float32) * (1 - ink) + np.array(pen, np.float32) * ink
    return np.concatenate([np.round(rgb).astype(np.uint8), rgba[..., 3:]], -1)


def comic(rgba: np.ndarray, ink=(18, 16, 20)) -> np.ndarray:
    """Loud colours within a thick outline, which goes beyond the drawing's own."""
    near = _soften(rgba[..., 3:].astype(np.float32) / 255, 3)
    cover, inside = np.clip((near - 0.08) / 0.3, 0, 1), np.clip((near - 0.5) / 0.3, 0, 1)
    colour = _colour(rgba, 1)
    grey = _luminance(colour)[..., None]
    loud = np.clip(grey + 1.6 * (colour - grey), 0, 255)
    rgb = np.array(ink, np.float32) * (1 - inside) + loud * inside
    return np.round(np.concatenate([rgb, 255 * cover], -1)).astype(np.uint8)


def neon(rgba: np.ndarray, glass=(18, 14, 34)) -> np.ndarray:
    """Lines that shine in the drawing's colours on dark glass, cut out along its outline."""
    colour = _colour(rgba, 2)
    colour = colour - 0.7 * colour.min(-1, keepdims=True)
    colour = 255 * colour / np.maximum(colour.max(-1, keepdims=True), 60)
    shine = np.clip(1.5 * _soften(_lines(rgba), 2), 0, 1)
    rgb = np.array(glass, np.float32) * (1 - shine) + colour * shine
    return np.concatenate([np.round(rgb).astype(np.uint8), rgba[..., 3:]], -1)


def stylise(rgba: np.ndarray, style: str) -> np.ndarray:
    """A technique applied to straight-alpha artwork, uint8 `[edge, edge, 4]`."""
    if style in _TONES:
        return toned(rgba, _TONES[style])
    return {"pixel": pixel, "sketch": sketch, "comic": comic, "neon": neon}[style](rgba)


def compose(rgba: np.ndarray, background: str | tuple[int, int, int]) -> np.ndarray:
    """Artwork over a flat colour: uint8 `[edge, edge, 3]`."""
    colour = np.array(BACKGROUNDS[background] if isinstance(background, str) else background, np.float32)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return np.round(rgba[..., :3] * alpha + colour * (1 - alpha)).astype(np.uint8)


class Artwork:
    """Every thing in every style, by name: `art["fox", "noto"]` is uint8 `[64, 64, 4]` or None."""

    def __init__(self, path: Path):
        with np.load(path) as archive:
            self._names = {str(name): i for i, name in enumerate(archive["things"])}
            styles = [key.removeprefix("rgba_") for key in archive if key.startswith("rgba_")]
            self._rgba = {style: archive[f"rgba_{style}"] for style in styles}
            self._has = {style: archive[f"has_{style}"] for style in styles}
        self._stylised: dict[tuple[str, str], np.ndarray] = {}

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray | None:
        thing, style = key
        artist = style if style in self._rgba else "noto"
        index = self._names[thing]
        if not self._has[artist][index]:
            return None
        rgba = self._rgba[artist][index]
        if artist == style:
            return rgba
        if key not in self._stylised:
            self._stylised[key] = stylise(rgba, style)
        return self._stylised[key]

    def picture(self, thing: str, style: str, background: str | tuple[int, int, int]) -> np.ndarray:
        """uint8 `[64, 64, 3]`."""
        return compose(self[thing, style], background)


def sheet(rows: list[list[np.ndarray]], scale: int = 2, gap: int = 4) -> Image.Image:
    """A contact sheet of uint8 pictures, enlarged without blur."""
    height, width = rows[0][0].shape[:2]
    out = np.full((len(rows) * (height * scale + gap) + gap, max(map(len, rows)) * (width * scale + gap) + gap, 3), 255, np.uint8)
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = gap + r * (height * scale + gap), gap + c * (width * scale + gap)
            out[top : top + height * scale, left : left + width * scale] = picture.repeat(scale, 0).repeat(scale, 1)
    return Image.fromarray(out)
