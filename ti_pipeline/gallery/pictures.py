"""Pictures in a gallery's folder. Their names are made here, so that no name from outside gets into a page's links."""

from __future__ import annotations

import base64
import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ti_pipeline.candidates.files import PARAMETERS_KEY
from ti_pipeline.choices.verdicts import ID
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import atomic, digest_file, write_text

SMALL = 128  # pixels of the longer edge, up to which a picture is enlarged here: browsers do it less well, and each in its way
ENLARGED = 4  # times at most
LARGE = 1600  # pixels of a reference's longer edge for whoever opens it
QUALITY, METHOD = 82, 1  # WebP: method 4 takes 2.5 times as long for 8 % fewer bytes


@dataclass(frozen=True)
class Hung:
    """A picture on a page: what is shown and what opens, relative to the page, with their sizes in pixels.

    `carrier` holds the opened file's bytes as a script: a page from a folder may run a script beside it, but not read a file.
    """

    shown: str
    opens: str
    width: int
    height: int
    full_width: int
    full_height: int
    label: str
    carrier: str = ""
    parameters: str = ""


def hang_candidate(source: Path, folder: Path, concept: str, digest: str, edge: int, label: str) -> Hung:
    """Copy a candidate with its recipe inside, and show it at about `edge` pixels. What is there already is left. Raises ConceptError."""
    name = digest[:ID]
    target = folder / "pictures" / f"{name}.png"
    carrier = target.with_suffix(".js")
    try:
        if not (target.is_file() and digest_file(target) == digest):
            if digest_file(source) != digest:
                raise ConceptError(
                    concept, f"{source} is not the picture that the ranking names. Run `ti-pipeline generate --force {concept}`."
                )
            with atomic(target) as temporary:
                shutil.copyfile(source, temporary)
            carrier.unlink(missing_ok=True)
        if not carrier.is_file():
            write_text(carrier, carried(name, target.read_bytes()))
        with Image.open(target) as picture:
            shown = target.with_name(f"{name}-{edge}.webp")
            size = shown_size(picture.size, edge)
            if not shown.is_file():
                write_webp(picture.convert("RGB"), shown, size)
            parameters = str(picture.info.get(PARAMETERS_KEY, ""))
            return Hung(
                f"pictures/{shown.name}", f"pictures/{name}.png", *size, *picture.size, label, f"pictures/{carrier.name}", parameters
            )
    except OSError as error:
        raise ConceptError(concept, f"{source} cannot be shown ({error}). Run `ti-pipeline generate --force {concept}`.") from None


def hang_references(manifest: Manifest, folder: Path, edge: int) -> list[Hung]:
    """The accepted pictures, encoded anew: upright, in sRGB, and without what a camera wrote about the place."""
    hung = []
    for number, picture in enumerate(manifest.pictures):
        stem = folder / "references" / f"{number:03d}-{picture.digest[:12]}"
        shown, large = stem.with_name(f"{stem.name}-{edge}.webp"), stem.with_name(f"{stem.name}-large.webp")
        size = shown_size((picture.width, picture.height), edge)
        full = shown_size((picture.width, picture.height), LARGE)
        if not (shown.is_file() and large.is_file()):
            pixels = manifest.open(picture)
            write_webp(pixels, shown, size)
            write_webp(pixels, large, full)
        label = picture.caption or picture.file
        hung.append(Hung(f"references/{shown.name}", f"references/{large.name}", *size, *full, label))
    return hung


def carried(name: str, content: bytes) -> str:
    """A script that hands the bytes to the page's own."""
    return f'receiveBytes("{name}","{base64.b64encode(content).decode("ascii")}");\n'


def shown_size(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """Shrunk to a longer edge of `edge`, or a small picture enlarged a whole number of times."""
    longer = max(size)
    scale = edge / longer if longer > edge else min(ENLARGED, edge // longer) if longer <= SMALL else 1
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def write_webp(pixels: Image.Image, path: Path, size: tuple[int, int]) -> None:
    """At `size` pixels; there whole or not at all."""
    scaled = pixels if size == pixels.size else pixels.resize(size, Image.Resampling.LANCZOS)
    with atomic(path) as temporary:
        scaled.save(temporary, format="WEBP", quality=QUALITY, method=METHOD)
