"""The example concepts, drawn from the held-out lists: `python -m miniature.examples` writes `examples/concepts/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from miniature.captions import article
from miniature.icons import Sources, fit, packages
from miniature.pictures import ARTISTS, HELD_OUT_STYLE, compose, stylise, things
from miniature.store import work_folder

TARGET = Path(__file__).parent.parent / "examples" / "concepts"
EDGE = 256
THINGS = ("fox", "frog", "strawberry", "ladybug")
# The paper's setting: several pictures of one object. A word for four artists' drawings stands for their mean, and that is a blot.
SHOWN = tuple((ARTISTS[0], background) for background in ("white", "yellow", "blue", "green"))
STYLE = (("dog", "white"), ("apple", "yellow"), ("car", "pink"), ("rose", "green"))
SAID = "a {{token}} picture of {} on {} background"  # what a caption names, the word of a style need not carry


def write(folder: Path, name: str, picture: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / f"{name}.png", optimize=True)


def main() -> None:
    sources = Sources(work_folder())
    licences = packages()
    for thing in THINGS:
        for style, background in SHOWN:
            write(TARGET / thing, background, compose(fit(sources.draw(thing, style, 4 * EDGE), EDGE), background))
        settings = {
            "initializer": things()["held_out"][thing],
            "kind": "object",
            "license": " and ".join(sorted({licences[s].licence for s, _ in SHOWN})) + ", see examples/LICENSE.md",
        }
        (TARGET / thing / "concept.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    for thing, background in STYLE:
        artwork = stylise(fit(sources.draw(thing, ARTISTS[0], 4 * EDGE), EDGE), HELD_OUT_STYLE)
        write(TARGET / HELD_OUT_STYLE, thing, compose(artwork, background))
    settings = {
        "initializer": "mono",
        "kind": "style",
        "captions": {f"{thing}.png": SAID.format(article(thing), article(background)) for thing, background in STYLE},
        "license": f"{licences[ARTISTS[0]].licence}, see examples/LICENSE.md",
    }
    (TARGET / HELD_OUT_STYLE / "concept.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


if __name__ == "__main__":
    main()
