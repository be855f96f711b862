"""Whether the data of a JPEG go as far as its picture does. A decoder fills what is missing and does not say so."""

from __future__ import annotations

import io
import random
import re

from PIL import Image, ImageChops, JpegImagePlugin

_END = b"\xff\xd9"
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # the next one that is neither data nor a restart
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_SCAN = 0xDA
_NOISE = bytes(random.Random(0).randrange(255) for _ in range(1024))  # no 255: without a marker
_OTHER = b"".join(_NOISE + bytes([0xFF, 0xD0 + number]) for number in range(8)) + _NOISE


def data_span(content: bytes) -> tuple[int, int | None]:
    """Where the first scan begins and where the end marker of the first picture lies; None when it has none."""
    at, first = 2, len(content)
    while (marker := _MARKER.search(content, at)) is not None:
        kind, at = marker[1][0], marker.end()
        if kind == _END[1]:
            return min(first, marker.start()), marker.end() - 2
        if kind not in _ALONE:
            at += int.from_bytes(content[at : at + 2], "big")
            if kind == _SCAN:
                first = min(first, at)
    return min(first, len(content)), None


def ended(content: bytes, end: int | None) -> bytes:
    """The first picture with an end marker, and without what follows it."""
    return _data(content, end) + _END


def is_whole(picture: Image.Image, content: bytes, end: int | None) -> bool:
    """Whether `picture`, decoded from `content`, would be the same if other data followed: then it needs no more than there are.

    Raises what the decoder raises.
    """
    with JpegImagePlugin.JpegImageFile(io.BytesIO(_data(content, end) + _OTHER + _END)) as other:
        return ImageChops.difference(picture, other).getbbox(alpha_only=False) is None


def _data(content: bytes, end: int | None) -> bytes:
    return content[:end].rstrip(b"\xff")  # the first half of a marker; in the data a zero follows it
