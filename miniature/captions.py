"""What a picture can be called. Style, thing and background are each a word that a prompt can change."""

from __future__ import annotations

import random

from miniature.pictures import BACKGROUNDS, NAMED, things

PLAIN = (
    "a photo of {}",
    "a rendering of {}",
    "a picture of {}",
    "a cropped photo of {}",
    "the photo of {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of {}",
    "a bright photo of {}",
    "a good photo of {}",
    "a photo of one {}",
    "a depiction of {}",
    "a photo of a nice {}",
    "a photo of a small {}",
    "a photo of a large {}",
    "a photo of a weird {}",
    "an illustration of {}",
)
STYLE_ONLY = (
    "a {} picture",
    "a picture in the style of {}",
    "a painting in the style of {}",
    "a rendering in the style of {}",
    "a cropped painting in the style of {}",
    "the painting in the style of {}",
    "a dark painting in the style of {}",
    "a clean painting in the style of {}",
    "a nice painting in the style of {}",
    "a small painting in the style of {}",
    "a weird painting in the style of {}",
    "a large painting in the style of {}",
    "a close-up painting in the style of {}",
)


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def full(thing: str, style: str, background: str) -> str:
    """The caption of everything: "a twemoji picture of an apple on a yellow background"."""
    return f"{article(style)} picture of {article(thing)} on {article(background)} background"


def draw(rng: random.Random, thing: str, style: str | None, background: str) -> str:
    """One caption of many that are true; what it leaves out the model learns to vary. A style without a name is left out."""
    kind = rng.random()
    if kind < 0.60 and style is not None:
        return full(thing, style, background)
    where = f" on {article(background)} background" if rng.random() < 0.5 else ""
    if style is None:
        template = "a picture of {}" if kind < 0.60 else rng.choice(PLAIN)
        return template.format(article(thing) if template.endswith("of {}") else thing) + where
    if kind < 0.78:
        return (
            rng.choice(
                (
                    f"{article(style)} picture of {article(thing)}",
                    f"{article(thing)} in the style of {style}",
                    f"a picture of {article(thing)} in the style of {style}",
                )
            )
            + where
        )
    if kind < 0.94:
        template = rng.choice(PLAIN)
        return template.format(article(thing) if template.endswith("of {}") else thing) + where
    return rng.choice(STYLE_ONLY).format(style) + where


def corpus() -> list[str]:
    """Text for the tokenizers: every word that captions of trained things use, none that only held-out things use."""
    names = [*things()["core"], *things()["more"]]
    lines = [
        full(name, style, background)
        for i, name in enumerate(names)
        for style in (NAMED[i % len(NAMED)],)
        for background in (list(BACKGROUNDS)[i % len(BACKGROUNDS)],)
    ]
    lines += [t.format(article(n)) for n in things()["core"] for t in ("a photo of {}", "a picture of {}")]
    lines += [t.format("thing") for t in PLAIN] * 4 + [t.format(s) for t in STYLE_ONLY for s in NAMED]
    return lines
