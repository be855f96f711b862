"""PNG files whose picture is whole and whose notes are not: large workflows and profiles, wrong checksums outside the picture."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

_SIGNATURE = 8  # bytes
_BLOCK = 1 << 20
_NOTE = 1 << 20  # bytes of one text or profile, unpacked, that Pillow takes
_NOTES = 32 << 20  # bytes of all of them
_PICTURE = {b"IHDR", b"PLTE", b"tRNS", b"IDAT"}  # chunks that pixels come from
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}


class Damaged(Exception):
    """A checksum of the picture itself is wrong."""


def mended(file: BinaryIO) -> tuple[BinaryIO, tuple[str, ...]]:
    """The file itself where nothing is wrong, else a copy without the notes that a decoder would stumble over, and warnings.

    Raises Damaged. How the file is built otherwise is the decoder's to judge.
    """
    left_out: list[tuple[int, int]] = []
    warnings: dict[str, None] = {}
    notes, kind = 0, b""
    for kind, start, length, sound in _chunks(file):
        if kind in _PICTURE and not sound:
            raise Damaged(f"the checksum of its {kind.decode()} is wrong")
        if kind in _TEXTS or kind == b"iCCP":
            file.seek(start + 8)
            size = _unpacked(kind, file.read(min(length, 4 * _NOTE)))
            notes += size
            if sound and length <= _NOTE and size <= _NOTE and notes <= _NOTES:
                continue
        elif sound or kind[:1].isupper():
            continue
        left_out.append((start, start + 12 + length))
        warnings[_said(kind, sound)] = None
    if kind != b"IEND":
        warnings["its end is missing; the picture is whole"] = None
    file.seek(0)
    return (_without(file, left_out) if left_out else file), tuple(warnings)


def has_clear_colours(file: BinaryIO) -> bool:
    """Whether it says how opaque its colours are (tRNS), by the chunks before its picture. Raises struct.error where it ends in them."""
    at = _SIGNATURE
    while True:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind in (b"tRNS", b"IDAT"):
            return kind == b"tRNS"
        at += 12 + length


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int, bool]]:
    """(kind, start, length of the data, whether the checksum is right) up to the end of the picture or of what can be read."""
    at = _SIGNATURE
    while True:
        file.seek(at)
        start = file.read(8)
        if len(start) < 8:
            return
        length, kind = struct.unpack(">I4s", start)
        checksum, left = zlib.crc32(kind), length
        while left and (block := file.read(min(left, _BLOCK))):
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        stored = file.read(4)
        if left or len(stored) < 4:
            return
        yield kind, at, length, checksum == int.from_bytes(stored, "big")
        if kind == b"IEND":
            return
        at += 12 + length


def _unpacked(kind: bytes, data: bytes) -> int:
    """Bytes of a note, as far as they matter: a little more than `_NOTE` at most."""
    rest = data.partition(b"\0")[2]
    if kind == b"iTXt":
        packed = rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else b""
    else:
        packed = rest[1:] if kind in (b"zTXt", b"iCCP") else b""
    if not packed:
        return len(data)
    try:
        return len(zlib.decompressobj().decompress(packed, _NOTE + 1))
    except zlib.error:
        return len(data)  # which decoders pass over


def _said(kind: bytes, sound: bool) -> str:
    what = "damaged" if not sound else "very large"
    if kind == b"iCCP":
        return f"its colour profile is {what}; taken for sRGB"
    return f"{what} {'text' if kind in _TEXTS else 'note'} in it ({kind.decode('latin-1')}) passed over; the picture is whole"


def _without(file: BinaryIO, spans: list[tuple[int, int]]) -> BinaryIO:
    data, parts, at = file.read(), [], 0
    for start, end in spans:
        parts.append(data[at:start])
        at = end
    return io.BytesIO(b"".join([*parts, data[at:]]))
