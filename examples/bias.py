"""A biased word replaced by one that was learnt from a small even set (Gal et al. 2022, section 4.5).

The model draws nearly every car and nearly every rose in red. A word that is learnt from four pictures, one in each of four colours,
stands for the thing and not for its colour. The distribution of the colour is measured before and after, on the same seeds.

python -m examples.bias
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from examples.lab import ROOT, Lab
from ti_pipeline.evaluation.metrics import LEVEL, drawings

THINGS = ("car", "rose")
COLOURS = {"red": 0, "yellow": 42, "green": 85, "blue": 150}  # hues of PIL's HSV, 0 to 255
COUNT = 96
SHOWN = 12


def colour(picture: Image.Image) -> str:
    """Of a thing on a flat background: the nearest of COLOURS to the mean hue of what is neither background nor gray."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    background = np.median(np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)]), axis=0)
    hue, saturation, value = np.moveaxis(np.asarray(picture.convert("HSV")).astype(float), -1, 0)
    thing = (np.abs(pixels - background).sum(axis=-1) > 120) & (saturation > 90) & (value > 60)
    turn = 2 * np.pi / 256
    mean = np.angle((saturation * np.exp(1j * turn * hue))[thing].sum()) / turn
    return min(COLOURS, key=lambda name: abs((mean - COLOURS[name] + 128) % 256 - 128))


def unevenness(colours: Sequence[str]) -> tuple[float, float, float]:
    """Total variation distance from the even distribution, 0 to 1, with its 95 % bootstrap interval."""
    of_each = np.array([[name == each for name in COLOURS] for each in colours], dtype=float)
    shares = drawings(len(colours), 5000, np.random.default_rng(0)) @ of_each
    drawn = np.abs(shares - 1 / len(COLOURS)).sum(axis=1) / 2
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(np.abs(of_each.mean(axis=0) - 1 / len(COLOURS)).sum() / 2), float(low), float(high)


def main() -> None:
    lab = Lab.open("bias", ROOT / "examples" / "even", ["train.vectors=3"])
    rows = []
    for word, thing in zip(lab.learn(*THINGS), THINGS, strict=True):
        rows.append(lab.shown(thing))
        for name, words in ((thing, ()), (word.token, (word,))):
            drawn = lab.draw(f"a photo of a {name}", words, COUNT)
            rows.append(drawn[:SHOWN])
            colours = [colour(picture) for picture in drawn]
            value, low, high = unevenness(colours)
            counts = ", ".join(f"{name} {Counter(colours)[name] / COUNT:.0%}" for name in COLOURS)
            print(f"a photo of a {name}: {counts}; distance from even {value:.2f} ({low:.2f} to {high:.2f})")
    print(f"Rows: the four pictures; the word of the vocabulary; the learnt word. {lab.save('bias', rows)}")


if __name__ == "__main__":
    main()
