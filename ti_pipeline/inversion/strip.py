"""Pictures that are drawn while a word is learnt, as files: one a step while it trains, then all of them side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ti_pipeline.files import atomic

_OF, _STEPS = "ti-pipeline preview", "ti-pipeline steps"  # texts in the files


def frame_path(folder: Path, step: int) -> Path:
    return folder / f"{step:06d}.png"


def write_frame(path: Path, picture: Image.Image, fingerprint: str) -> None:
    _write(path, picture, {_OF: fingerprint})


def read_frame(path: Path, fingerprint: str) -> Image.Image | None:
    """The picture that stands there whole under the fingerprint, else None."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.info.get(_OF) != fingerprint:
                return None
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return None


def newest_frame(folder: Path) -> tuple[int, Path] | None:
    """The last step that was drawn so far, and its file; None where there is none."""
    found = [(int(path.stem), path) for path in folder.glob("[0-9]*.png")]
    return max(found, default=None)


def write_strip(path: Path, frames: Mapping[int, Image.Image], fingerprint: str) -> None:
    """All pictures, of one size, from left to right in the order of their steps."""
    edge = max(picture.width for picture in frames.values())
    strip = Image.new("RGB", (edge * len(frames), max(picture.height for picture in frames.values())))
    for place, step in enumerate(sorted(frames)):
        strip.paste(frames[step], (place * edge, 0))
    _write(path, strip, {_OF: fingerprint, _STEPS: json.dumps(sorted(frames))})


def strip_fingerprint(path: Path) -> str:
    """What a strip stands under; empty when there is none or it cannot be read."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return str(picture.info.get(_OF, ""))
    except (OSError, SyntaxError, ValueError):
        return ""


def read_strip(path: Path) -> dict[int, Image.Image]:
    """The pictures of a strip by their steps; empty when there is none or it cannot be read."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            steps, strip = json.loads(picture.info.get(_STEPS, "[]")), picture.convert("RGB")
    except (OSError, SyntaxError, ValueError):
        return {}
    edge = strip.width // max(len(steps), 1)
    return {step: strip.crop((place * edge, 0, (place + 1) * edge, strip.height)) for place, step in enumerate(steps)}


def _write(path: Path, picture: Image.Image, texts: Mapping[str, str]) -> None:
    about = PngInfo()
    for key, text in texts.items():
        about.add_text(key, text)
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=about)
