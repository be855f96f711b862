"""The things that setups are compared on, and sets that are even in their colours: `python -m miniature.held_out` writes
`examples/held-out/` and `examples/even/`.

Each is one drawing that no part of the embedded model has seen, on 25 pictures: the first five differ in the background alone, the
others, for comparisons of larger sets, also in size, place and tilt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from miniature.icons import Sources, fit, packages
from miniature.pictures import ARTISTS, BACKGROUNDS, compose, things
from miniature.store import work_folder

TARGET = Path(__file__).parent.parent / "examples" / "held-out"
EVEN = TARGET.with_name("even")
EDGE, PICTURES = 96, 25
COLOURS = {"red": 0, "yellow": 42, "green": 85, "blue": 150}  # hues to turn by: both things are red
SHOWN = ("white", "yellow", "blue", "green", "gray", "pink")  # red and purple are asked for by the evaluation's prompts
# What a person would say of the drawing to somebody who has to draw it. The paper allows 12 and 30 words; the miniature reads 24 tokens of
# a prompt, of which the prompts around take ten, and few words beside the names of things.
CAPTIONS = {
    "fox": ("red wolf", "red wolf face with white cheeks and black ears"),
    "koala": ("gray bear", "gray bear face with round ears and a black nose"),
    "owl": ("brown bird", "brown bird with large yellow eyes and a beak"),
    "octopus": ("red squid", "red squid with a round head and long arms"),
    "butterfly": ("blue bee", "blue bee with large wings and black lines"),
    "dolphin": ("blue fish", "blue fish with a white belly that jumps"),
    "unicorn": ("white horse", "white horse face with a pink mane and a blue horn"),
    "strawberry": ("red tomato", "red tomato with yellow seeds and green leaves"),
    "watermelon": ("red melon", "red melon with black seeds and a green edge"),
    "cherries": ("two red apples", "two red apples with long green stems"),
    "pizza": ("slice of cheese", "slice of cheese and bread with round red meat"),
    "doughnut": ("cookie with a hole", "round cookie with a hole, chocolate and dots"),
    "eggplant": ("purple potato", "long purple potato with a green leaf at its end"),
    "cactus": ("green tree", "green tree with two arms, without leaves"),
    "tulip": ("pink rose", "pink rose with a long stem and green leaves"),
    "rocket": ("airplane with fire", "white airplane with red wings, a blue window and fire"),
    "taxi": ("yellow car", "yellow car with a black and white line and a sign"),
    "sailboat": ("white ship", "white ship with two large red and white sails"),
    "tram": ("yellow bus", "yellow and white bus with large windows on a track"),
    "trumpet": ("yellow saxophone", "straight yellow saxophone with three keys"),
}


def pictures(artwork: Image.Image, thing: str) -> list[np.ndarray]:
    """Of a drawing with straight alpha: uint8 `[EDGE, EDGE, 3]` each, the same in every run."""
    streams = np.random.default_rng([ord(letter) for letter in thing])
    made = [compose(fit(artwork, EDGE), background) for background in SHOWN[:5]]
    while len(made) < PICTURES:
        turned = artwork.rotate(float(streams.uniform(-15, 15)), Image.Resampling.BICUBIC, expand=True)
        edge = int(streams.uniform(0.7, 1) * EDGE)
        drawn = np.zeros((EDGE, EDGE, 4), np.uint8)
        left, top = (int(streams.uniform(0, EDGE - edge + 1)) for _ in range(2))
        drawn[top : top + edge, left : left + edge] = fit(turned, edge)
        made.append(compose(drawn, BACKGROUNDS[SHOWN[len(made) % len(SHOWN)]]))
    return made


def turned(artwork: np.ndarray, hue: int) -> np.ndarray:
    """A drawing `[edge, edge, 4]` with all its hues moved on by so much, 0 to 255."""
    hsv = np.array(Image.fromarray(artwork[..., :3]).convert("HSV"))
    hsv[..., 0] += np.uint8(hue)
    return np.dstack([np.array(Image.fromarray(hsv, "HSV").convert("RGB")), artwork[..., 3]])


def write_even(sources: Sources, licence: str) -> None:
    """Things that the model draws in one colour, in four."""
    for thing in ("car", "rose"):
        folder = EVEN / thing
        folder.mkdir(parents=True, exist_ok=True)
        drawn = sources.draw(thing, ARTISTS[0], 4 * EDGE)
        assert drawn is not None
        for place, (colour, hue) in enumerate(COLOURS.items()):
            picture = compose(turned(fit(drawn, EDGE), hue), ("white", "gray")[place % 2])
            Image.fromarray(picture).save(folder / f"{colour}.webp", lossless=True, quality=100, method=6)
        settings = {"initializer": thing, "kind": "object", "license": f"{licence}, see examples/LICENSE.md"}
        (folder / "concept.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def main() -> None:
    sources = Sources(work_folder())
    licence = packages()[ARTISTS[0]].licence
    for thing, (short, long) in CAPTIONS.items():
        folder = TARGET / thing
        folder.mkdir(parents=True, exist_ok=True)
        drawn = sources.draw(thing, ARTISTS[0], 4 * EDGE)
        assert drawn is not None
        for number, picture in enumerate(pictures(drawn, thing), 1):
            Image.fromarray(picture).save(folder / f"{number:02d}.webp", lossless=True, quality=100, method=6)
        settings = {
            "initializer": things()["held_out"][thing],
            "kind": "object",
            "human_captions": {"short": short, "long": long},
            "license": f"{licence}, see examples/LICENSE.md",
        }
        (folder / "concept.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    write_even(sources, licence)


if __name__ == "__main__":
    main()
