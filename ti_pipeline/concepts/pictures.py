"""Picture files: what their header says, and their pixels, upright and in sRGB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, GifImagePlugin, Image, ImageFile, PngImagePlugin
from pillow_heif import HeifImageFile

from ti_pipeline.concepts import png
from ti_pipeline.concepts.colour import on_background, to_srgb
from ti_pipeline.concepts.formats import PictureError as PictureError
from ti_pipeline.concepts.formats import opened
from ti_pipeline.concepts.gaps import missing

ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}  # modes of pictures that have such a channel
_PNG = b"\x89PNG\r\n\x1a\n"
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What a file says before anything is decoded; `width` and `height` in pixels as stored, not yet upright.

    `frames` is None where those behind the first cannot be counted.
    """

    format: str
    width: int
    height: int
    mode: str
    frames: int | None

    @property
    def megapixels(self) -> float:
        return self.width * self.height / 1e6


@dataclass(frozen=True)
class Decoded:
    """`image` is RGB, upright, sRGB, without transparency; `orientation` is the EXIF value that the file had, 1 to 8.

    `clear` is whether a place of the file's picture was transparent.
    """

    image: Image.Image
    orientation: int
    warnings: tuple[str, ...]
    clear: bool


def read_header(path: Path) -> Header:
    """Format, size, mode and number of frames, without decoding. Raises PictureError."""
    with opened(path) as here:
        picture = here.picture
        name = "MPO" if picture.format == "MPO" else here.format
        return Header(name, picture.width, picture.height, picture.mode, _frames(picture))


def decode(path: Path, background: tuple[int, int, int], *, thorough: bool = True) -> Decoded:
    """Decode the first frame completely, turn it upright, convert it to sRGB and lay it on `background`. Raises PictureError.

    `thorough` also looks for parts that are missing though the decoder does not say so; it takes a JPEG twice as long.
    """
    with opened(path) as here:
        picture = here.picture
        stored = 1 if isinstance(picture, PngImagePlugin.PngImageFile) else _orientation(picture)  # a PNG's may follow the pixels
        picture.load()
        remarks = here.warnings + (missing(here) if thorough or here.lacks_end else ())
        turn = 1 if isinstance(picture, HeifImageFile) else _orientation(picture)  # HEIC and TIFF are turned by their decoders
        colours, alpha, warning = to_srgb(picture)
        image = on_background(colours, alpha, background)
        if turn in _UPRIGHT:
            image = image.transpose(_UPRIGHT[turn])
    said = (*remarks, warning) if warning and warning not in remarks else remarks
    return Decoded(image, stored if stored != 1 else turn, said, alpha is not None and alpha.getextrema()[0] != 255)


def open_picture(path: Path, background: tuple[int, int, int]) -> Image.Image:
    """The picture as RGB, completely decoded, upright, in sRGB, transparency laid on `background`. Raises PictureError."""
    return decode(path, background, thorough=False).image


def open_mask(path: Path) -> Image.Image:
    """The gray levels (L) of a mask, upright; black where it is transparent. Raises PictureError."""
    return decode(path, (0, 0, 0), thorough=False).image.convert("L")


def open_alpha(path: Path) -> Image.Image:
    """How opaque each place of a picture is (L), upright; white where nothing is transparent. Raises PictureError."""
    with opened(path) as here:
        here.picture.load()
        turn = 1 if isinstance(here.picture, HeifImageFile) else _orientation(here.picture)
        colours, alpha, _ = to_srgb(here.picture)
        alpha = alpha or Image.new("L", colours.size, 255)
        return alpha.transpose(_UPRIGHT[turn]) if turn in _UPRIGHT else alpha


def has_clear_colours(path: Path) -> bool:
    """Whether a PNG or GIF says that colours of it are transparent, which its mode does not tell; by what precedes the pixels alone."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            if start == _PNG:
                return png.has_clear_colours(file)
            file.seek(0)
            return start.startswith(b"GIF") and "transparency" in GifImagePlugin.GifImageFile(file).info
    except Exception:  # a decoder may raise anything; whoever opens the picture says what is wrong with it
        return False


def _frames(picture: ImageFile.ImageFile) -> int | None:
    try:
        return getattr(picture, "n_frames", 1)
    except Exception:  # a decoder may raise anything; the first frame may be sound nevertheless
        return None


def _orientation(picture: ImageFile.ImageFile) -> int:
    if isinstance(picture, HeifImageFile):  # which sets the tag to 1
        return picture.info.get("original_orientation") or 1
    value = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in _UPRIGHT else 1
