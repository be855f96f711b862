"""The crowd: artwork that nobody asks for by name, so that the space between the words with names is full.

A word is learnt well where the generator has drawn many words near it. The emoji that the fixed lists do not name come
in every artist's hand, and thousands of icons in one. Nothing of it may show a held-out thing: whatever has a name that
hints at one, by the words in `crowd.json`, is left out.

`python -m miniature.crowd` writes `crowd.npz` into the work folder.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from miniature.icons import Iconify, Package, Sources, fetch, fit
from miniature.icons import packages as icon_packages
from miniature.pictures import ARTISTS, TECHNIQUES, stylise
from miniature.store import work_folder
from ti_pipeline.files import atomic

HERE = Path(__file__).parent
FLAGS_AND_PARTS = (2, 9)  # groups of emoji: skin tones and hair, flags
EDGE = 2 * 56


def packages() -> dict[str, Package]:
    return {name: Package(**row) for name, row in json.loads((HERE / "crowd.json").read_text())["packages"].items()}


def allowed(name: str) -> bool:
    """Whether a name hints at no held-out thing; "fireengine" does, and so does "bowl", for its owl."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return not any(word in plain for word in json.loads((HERE / "crowd.json").read_text())["left_out"])


def emoji(sources: Sources, entries: list[dict]) -> dict[str, dict[str, np.ndarray]]:
    """Every artist's picture of the emoji that no fixed list names."""
    lists = json.loads((HERE / "things.json").read_text())
    named = {lists["labels"].get(name, name) for name in (*lists["core"], *lists["more"], *lists["held_out"])}
    out = {}
    for entry in entries:
        label = entry["label"]
        if label in named or entry.get("group", 2) in FLAGS_AND_PARTS or not allowed(label):
            continue
        drawn = {style: sources.styles[style].draw(label, entry["hexcode"], EDGE) for style in ARTISTS}
        found = {style: fit(picture) for style, picture in drawn.items() if picture is not None and picture.getbbox()}
        if len(found) > 1:
            out[label] = found
    return out


def icons(source: Iconify, name: str, tint: np.random.Generator) -> dict[str, np.ndarray]:
    """The icons of one package; what has a filled version only filled, what has no colour in one of the rainbow's."""
    out = {}
    for icon in source.icons:
        if not allowed(icon) or any(icon + filled in source.icons for filled in ("-flat", "-duo")):
            continue
        colour = "#" + "".join(f"{v:02x}" for v in tint.integers(0, 230, 3))
        picture = source.render(icon, EDGE, colour)
        if picture.getbbox():
            out[f"{name}:{icon}"] = fit(picture)
    return out


def rasterise(folder: Path) -> Path:
    """Draw the crowd: `name`, `hand` (number of an artist, or -1) and straight-alpha `rgba`, a row a picture."""
    target = folder / "crowd.npz"
    if target.exists():
        return target
    rows = []
    entries = json.loads((fetch(icon_packages()["labels"], folder / "packages") / "en" / "data.json").read_text())
    for label, drawn in emoji(Sources(folder), entries).items():
        rows += [(label, ARTISTS.index(style), rgba) for style, rgba in drawn.items()]
    tint = np.random.default_rng(17)
    for name, package in packages().items():
        rows += [(icon, -1, rgba) for icon, rgba in icons(Iconify(fetch(package, folder / "packages")), name, tint).items()]
    names, hands, pictures = zip(*rows, strict=True)
    with atomic(target) as temporary:
        np.savez_compressed(temporary, name=np.array(names), hand=np.array(hands, np.int8), rgba=np.stack(pictures))
    return target


class Crowd:
    """What `rasterise` has drawn: `emoji` are the names that several artists have drawn, `icons` those of one hand."""

    def __init__(self, path: Path):
        with np.load(path) as archive:
            names, hands, self._rgba = archive["name"].tolist(), archive["hand"].tolist(), archive["rgba"]
        self._row = {(name, hand): row for row, (name, hand) in enumerate(zip(names, hands, strict=True))}
        self.emoji = sorted({name for name, hand in self._row if hand >= 0})
        self.icons = sorted({name for name, hand in self._row if hand < 0})

    def __getitem__(self, key: tuple[str, str | None]) -> np.ndarray | None:
        """Artwork uint8 `[64, 64, 4]` in a style, or in an icon's own hand (None); None where that artist has not drawn it."""
        name, style = key
        if style in TECHNIQUES:
            base = self[name, ARTISTS[0]]
            return None if base is None else stylise(base, style)
        row = self._row.get((name, -1 if style is None else ARTISTS.index(style)))
        return None if row is None else self._rgba[row]


if __name__ == "__main__":
    print(rasterise(work_folder()))
