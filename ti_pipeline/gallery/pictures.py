"""Pictures in a gallery's folder. Their names are made here, so that no name from outside gets into a page's links."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import atomic, digest_file

SMALL = 128  # pixels of the longer edge, up to which a picture is enlarged here: browsers do it less well, and each in its way
LARGE = 5  # a reference is kept at this many thumbnails' size for whoever opens it
QUALITY = 92


@dataclass(frozen=True)
class Hung:
    """A picture on a page: what is shown and what opens, relative to the page; sizes in pixels of what is shown."""

    shown: str
    opens: str
    width: int
    height: int
    label: str


def hang_candidate(source: Path, folder: Path, concept: str, digest: str, thumbnail: int, label: str) -> Hung:
    """Copy a candidate with its recipe inside, and show it at about a thumbnail's size. Raises ConceptError."""
    name = f"{digest[:16]}.png"
    target = folder / "pictures" / name
    try:
        if not (target.is_file() and digest_file(target) == digest):
            if digest_file(source) != digest:
                raise ConceptError(
                    concept, f"{source} is not the picture that the ranking names. Run `ti-pipeline generate --force {concept}`."
                )
            with atomic(target) as temporary:
                shutil.copyfile(source, temporary)
        with Image.open(target) as picture:
            if SMALL < max(picture.size) <= thumbnail * 1.5:
                return Hung(f"pictures/{name}", f"pictures/{name}", *picture.size, label)
            shown, size = _write_at(picture.convert("RGB"), target.with_suffix(".jpg"), thumbnail)
    except OSError as error:
        raise ConceptError(concept, f"{source} cannot be shown ({error}). Run `ti-pipeline generate --force {concept}`.") from None
    return Hung(f"pictures/{shown}", f"pictures/{name}", *size, label)


def hang_references(manifest: Manifest, folder: Path, thumbnail: int) -> list[Hung]:
    """The accepted pictures, encoded anew: upright, in sRGB, and without what a camera wrote about the place."""
    hung = []
    for number, picture in enumerate(manifest.pictures):
        pixels, path = manifest.open(picture), folder / "references" / f"{number:03d}-{picture.digest[:12]}.jpg"
        shown, size = _write_at(pixels, path, thumbnail)
        large = shown
        if max(pixels.size) > max(size):
            large, _ = _write_at(pixels, path.with_stem(f"{path.stem}-large"), LARGE * thumbnail)
        hung.append(Hung(f"references/{shown}", f"references/{large}", *size, picture.caption or picture.file))
    return hung


def _write_at(pixels: Image.Image, path: Path, edge: int) -> tuple[str, tuple[int, int]]:
    """As JPEG, its longer edge at most `edge`: shrunk to it, or a small one enlarged a whole number of times."""
    longer = max(pixels.size)
    scale = edge / longer if longer > edge else edge // longer if longer <= SMALL else 1
    size = (max(1, round(pixels.width * scale)), max(1, round(pixels.height * scale)))
    scaled = pixels if size == pixels.size else pixels.resize(size, Image.Resampling.LANCZOS)
    with atomic(path) as temporary:
        scaled.save(temporary, format="JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return path.name, size
