"""Picture files: what their header says, and their pixels, upright and in sRGB.

A decoder that meets hostile bytes may raise anything, so everything that it raises becomes a PictureError here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pillow_heif import HeifImageFile

from ti_pipeline.concepts.colour import Unconvertible, on_background, to_srgb
from ti_pipeline.errors import PipelineError

# Pillow's remarks on damaged metadata name its own source lines; what matters of them is in our reasons and warnings.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Straight to the decoders of these formats: Image.open() knows many more, of which some start other programs, and
# stops at a size of its own choice instead of at `max_megapixels`.
_DECODERS: dict[str, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "HEIC": HeifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"II+\x00": "TIFF",
    b"MM\x00+": "TIFF",
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(PipelineError):
    """One picture cannot be used; the text says why."""


@dataclass(frozen=True)
class Header:
    """What a file says before anything is decoded; `width` and `height` in pixels as stored, not yet upright."""

    format: str
    width: int
    height: int
    mode: str
    frames: int

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


@dataclass(frozen=True)
class Decoded:
    """`image` is RGB, upright, sRGB, without transparency; `orientation` is the EXIF value that the file had, 1 to 8."""

    image: Image.Image
    orientation: int
    warnings: tuple[str, ...]


def read_header(path: Path) -> Header:
    """Format, size, mode and number of frames, without decoding. Raises PictureError."""
    with _opened(path) as (name, picture):
        return Header(name, picture.width, picture.height, picture.mode, getattr(picture, "n_frames", 1))


def decode(path: Path, background: tuple[int, int, int]) -> Decoded:
    """Decode the first frame completely, turn it upright, convert it to sRGB and lay it on `background`. Raises PictureError."""
    with _opened(path) as (_, picture):
        stored = 1 if isinstance(picture, PngImagePlugin.PngImageFile) else _orientation(picture)  # a PNG's may follow the pixels
        picture.load()
        turn = 1 if isinstance(picture, HeifImageFile) else _orientation(picture)  # HEIC and TIFF are turned by their decoders
        colours, alpha, warning = to_srgb(picture)
        image = on_background(colours, alpha, background)
        if turn in _UPRIGHT:
            image = image.transpose(_UPRIGHT[turn])
    return Decoded(image, stored if stored != 1 else turn, (warning,) if warning else ())


def open_picture(path: Path, background: tuple[int, int, int]) -> Image.Image:
    """The picture as RGB, completely decoded, upright, in sRGB, transparency laid on `background`. Raises PictureError."""
    return decode(path, background).image


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, ImageFile.ImageFile]]:
    name = "picture"
    try:
        with path.open("rb") as file:
            start = file.read(64)
            file.seek(0)
            if not start:
                raise PictureError("empty: the file has no bytes")
            name = _format(start)
            if name == "TIFF" and path.suffix.lower() not in (".tif", ".tiff"):
                raise PictureError("a TIFF by its content but not by its name, as camera raw files are; export it as JPEG or TIFF")
            picture = _DECODERS[name](file)
            with picture:
                yield "MPO" if picture.format == "MPO" else name, picture
    except PictureError:
        raise
    except Unconvertible as error:
        raise PictureError(str(error)) from None
    except (MemoryError, Image.DecompressionBombError):
        raise PictureError(f"larger than this machine or the {name} decoder takes; make it smaller") from None
    except Exception as error:
        raise PictureError(f"truncated or damaged {name}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _format(start: bytes) -> str:
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        end = int.from_bytes(start[:4], "big")
        brands = {start[8:12], *(start[at : at + 4] for at in range(16, min(end, len(start)), 4))}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        if brands & _HEIC_BRANDS:
            return "HEIC"
    raise PictureError(f"not a picture that can be read; the formats are {', '.join(_DECODERS)}")


def _orientation(picture: ImageFile.ImageFile) -> int:
    if isinstance(picture, HeifImageFile):  # which sets the tag to 1
        return picture.info.get("original_orientation") or 1
    value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in _UPRIGHT else 1
