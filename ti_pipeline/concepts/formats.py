"""Opening picture files: which decoder reads them, and what has to be repaired or refused before it does.

A decoder that meets hostile bytes may raise anything, so everything that it raises becomes a PictureError here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from pillow_heif import HeifImageFile

from ti_pipeline.concepts import jpeg
from ti_pipeline.concepts.coded import coded
from ti_pipeline.concepts.colour import Unconvertible
from ti_pipeline.concepts.png import mended
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
    "BMP": BmpImagePlugin.BmpImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
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
    b"BM": "BMP",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\x00\x00\x00\x0cjP  \r\n\x87\n": "JPEG2000",
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_READ_WHOLE = {"JPEG", "WEBP", "AVIF", "HEIC", "JPEG2000"}
_WEBP_DATA = {b"VP8 ", b"VP8L"}
_TIFF_TILE = (322, 323)  # tags of its width and length
_OVERHANG = 64  # pixels by which coders round a side up
_LARGE_TILE = 4096  # pixels of a side; smaller ones may be larger than the picture


Spans = tuple[tuple[int, int | None], ...]  # None where there is no end


class PictureError(PipelineError):
    """One picture cannot be used; the text says why."""


@dataclass(frozen=True)
class Opened:
    """A picture with its header read; `content` is the file where its format is read whole, `spans` where the coded data lie in it."""

    format: str
    file: BinaryIO
    picture: ImageFile.ImageFile
    content: bytes
    spans: Spans
    warnings: tuple[str, ...]

    @property
    def lacks_end(self) -> bool:
        """A JPEG without its last two bytes."""
        return self.format == "JPEG" and self.spans[0][1] is None


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """The picture with its header read, nothing decoded yet. Raises PictureError, also for what is raised within the block."""
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
            content = file.read() if name in _READ_WHOLE else b""
            file.seek(0)
            here = _open(name, file, content)
            with here.picture:
                yield here
    except PictureError:
        raise
    except Unconvertible as error:
        raise PictureError(str(error)) from None
    except (MemoryError, Image.DecompressionBombError):
        raise PictureError(f"larger than this machine or the {name} decoder takes; make it smaller") from None
    except Exception as error:
        raise PictureError(f"truncated or damaged {name}: {' '.join(str(error).split()) or type(error).__name__}") from None


def _open(name: str, file: BinaryIO, content: bytes) -> Opened:
    remarks: tuple[str, ...] = ()
    spans: Spans = ()
    held = None
    if name == "PNG":
        file, remarks = mended(file)
    elif name == "JPEG":
        spans = (jpeg.data_span(content),)
        if spans[0][1] is None:
            file = io.BytesIO(jpeg.ended(content, None))
    elif name == "WEBP":
        spans = tuple(_webp_data(content))
    elif name in _READ_WHOLE:
        found = coded(content, name)
        held, spans = found.size, found.spans
    picture = _DECODERS[name](file)
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        held = _tile(picture)
    if held and held[0] * held[1] > (picture.width + _OVERHANG) * (picture.height + _OVERHANG):
        said = f"{picture.width} × {picture.height} pixels but holds {held[0]} × {held[1]}"
        raise PictureError(f"{name} that declares {said}; save it anew from the original")
    return Opened(name, file, picture, content, spans, remarks)


def _webp_data(content: bytes) -> Iterator[tuple[int, int]]:
    at = 12
    while at + 8 <= len(content):
        end = at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")
        if content[at : at + 4] in _WEBP_DATA:
            yield at + 8, min(end, len(content))
        at = end + end % 2


def _tile(picture: TiffImagePlugin.TiffImageFile) -> tuple[int, int] | None:
    """Size of a tile that alone would take more memory than the picture should."""
    width, height = (picture.tag_v2.get(tag, 0) for tag in _TIFF_TILE)
    return (width, height) if width * height > _LARGE_TILE**2 else None


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
