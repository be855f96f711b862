"""Signs that a part of a picture is missing although it decodes: zero bytes where its data should be."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
from PIL import Image, TiffImagePlugin

from ti_pipeline.concepts import jpeg
from ti_pipeline.concepts.formats import Opened, PictureError

_ZEROS = re.compile(rb"\0{256,}")
# equal pixels for which a coder writes one zero byte, at the least: 2 without prediction or repeats, 64 in blocks of no more than 8 bits
_PIXELS_A_ZERO = {"VP8L": 2, "JPEG": 64, "TIFF": 64, "WEBP": 1000, "AVIF": 1000, "HEIC": 1000, "JPEG2000": 1000}
_FEWEST_ROWS = 2
_TIFF_COMPRESSION, _TIFF_DATA = 259, ((273, 279), (324, 325))  # tags; of the data those of starts and lengths, in strips or tiles


def missing(opened: Opened) -> tuple[str, ...]:
    """Warnings of what a loaded picture may lack. Raises PictureError where a JPEG surely lacks something."""
    picture, name = opened.picture, opened.format
    content, spans = opened.content, opened.spans
    tiff = picture if isinstance(picture, TiffImagePlugin.TiffImageFile) else None
    if name == "BMP" or (tiff and tiff.tag_v2.get(_TIFF_COMPRESSION, 1) == 1):
        rows = _black_rows_at_end(picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if name == "BMP" else picture)
        return (f"black from within a row to its end, {rows} rows; that part may be missing",) if rows else ()
    if tiff:
        opened.file.seek(0)
        content, spans = opened.file.read(), _tiff_data(tiff)
    if name == "JPEG" and not jpeg.is_whole(picture, content, spans[0][1]):
        raise PictureError("truncated or damaged JPEG: its data end before the picture does")
    zeros = _zeros_within(content, ((start, len(content) if end is None else end) for start, end in spans))
    coder = "VP8L" if any(content[start - 8 : start - 4] == b"VP8L" for start, _ in spans) else name
    if zeros and _repeated_pixels(picture) < zeros * _PIXELS_A_ZERO[coder]:
        return (f"{zeros} zero bytes where its data should be; a part of it may be missing",)
    return ("its end marker is missing; the picture is whole",) if opened.lacks_end else ()


def _zeros_within(content: bytes, spans: Iterable[tuple[int, int]]) -> int:
    """Length of the longest run of zero bytes, from 256, within the spans; 0 where there is none."""
    return max((len(run[0]) for start, end in spans for run in _ZEROS.finditer(content, start, end)), default=0)


def _repeated_pixels(image: Image.Image) -> int:
    """How many pixels are the same as their right neighbour; where many are, a coder may well write zeros."""
    values = np.atleast_3d(np.asarray(image))
    return int((values[:, 1:] == values[:, :-1]).all(axis=2).sum())


def _black_rows_at_end(image: Image.Image) -> int:
    """Rows of an uncompressed picture after which nothing but zeros comes, from within a row that did not begin black; else 0.

    A black frame or ground begins with a row, or is black at its left too.
    """
    lit = np.count_nonzero(np.atleast_3d(np.asarray(image)), axis=2) > 0
    row = int(np.flatnonzero(np.count_nonzero(lit, axis=1)).max(initial=0))  # the last that is not black
    rows = image.height - 1 - row
    return rows if rows >= _FEWEST_ROWS and lit[row, 0] and not lit[row, -1] else 0


def _tiff_data(picture: TiffImagePlugin.TiffImageFile) -> tuple[tuple[int, int], ...]:
    tags = picture.tag_v2
    return tuple(
        (start, start + length)
        for starts, lengths in _TIFF_DATA
        for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=False)
    )
