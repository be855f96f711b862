"""What AVIF, HEIC and JPEG 2000 files really hold. Their containers only claim a size; decoders obey the coded data.

Positions are in bytes of the file, sizes in pixels. A file that is not built as it should be raises Misbuilt, never anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

Span = tuple[int, int]
Size = tuple[int, int]
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"iprp", b"ipco"}
_SAMPLE_ENTRY = 78  # bytes of a visual sample entry before its boxes
_HVCC = 22  # bytes of an hvcC before its arrays
_AV1_SEQUENCE, _HEVC_SEQUENCE = 1, 33  # types of OBU and NAL unit


class Misbuilt(Exception):
    """The container contradicts itself or ends too early."""


@dataclass(frozen=True)
class Coded:
    """The largest of all `sizes` that decoders may meet, and where the `spans` of coded data lie."""

    size: Size
    spans: tuple[Span, ...]


def coded(data: bytes, format: str) -> Coded:
    """Of a file of `format` AVIF, HEIC or JPEG2000. Raises Misbuilt, also when nothing is found."""
    with _misbuilt():
        sizes, spans = _jpeg_2000(data) if format == "JPEG2000" else _items_and_tracks(data)
    if not sizes:
        raise Misbuilt("no coded picture is found in it")
    return Coded(max(sizes, key=lambda size: size[0] * size[1]), tuple(spans))


@contextmanager
def _misbuilt() -> Iterator[None]:
    try:
        yield
    except (IndexError, ValueError, KeyError, struct.error, RecursionError) as error:
        raise Misbuilt(f"its structure is broken ({type(error).__name__})") from None


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of every box's body."""
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if length == 1:
            length, body = struct.unpack_from(">Q", data, body)[0], body + 8
        after = end if length == 0 else start + length
        if not body <= after <= end:
            raise ValueError(kind)
        yield kind, body, after
        start = after


def _jpeg_2000(data: bytes) -> tuple[list[Size], list[Span]]:
    bare = data.startswith(b"\xff\x4f")
    end = data.rfind(b"\xff\xd9") + 1 or len(data)  # its marker; what follows is not the picture's
    spans = [(0, end)] if bare else [(start, end) for kind, start, end in _boxes(data, 0, len(data)) if kind == b"jp2c"]
    sizes = []
    for start, _ in spans:
        right, bottom, left, top = struct.unpack_from(">4I", data, start + 8)
        if data[start : start + 4] != b"\xff\x4f\xff\x51" or not 1 <= struct.unpack_from(">H", data, start + 40)[0] <= 4:
            raise ValueError
        sizes.append((right - left, bottom - top))
    return sizes, spans


def _items_and_tracks(data: bytes) -> tuple[list[Size], list[Span]]:
    found = _Found(data)
    found.look(0, len(data))
    sizes = list(found.sizes)
    for kind, spans in found.parts:
        content = data[slice(*spans[0])] if len(spans) == 1 else b"".join(data[start:end] for start, end in spans)
        if kind in (b"grid", b"iovl"):
            sizes.append(_canvas(kind, content))
        elif kind == b"av01":
            sizes += _av1(content)
        else:
            for width in found.nal_lengths or {4}:
                sizes += _hevc(content, width)
    return sizes, [span for kind, spans in found.parts if kind not in (b"grid", b"iovl") for span in spans]


class _Found:
    """Items of `meta` boxes and the first samples of tracks, with the sizes that their decoder configurations say."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sizes: list[Size] = []
        self.nal_lengths: set[int] = set()
        self.parts: list[tuple[bytes, list[Span]]] = []
        self.total = 0  # bytes of the parts

    def look(self, start: int, end: int) -> None:
        first: dict[bytes, int] = {}
        for kind, body, after in _boxes(self.data, start, end):
            if kind == b"meta":
                self._meta(body + 4, after)
            elif kind in _CONTAINERS:
                self.look(body, after)
            elif kind == b"av1C":
                self.sizes += _av1(self.data[body + 4 : after])
            elif kind == b"hvcC":
                self._hvcc(body, after)
            elif kind in (b"stsd", b"stco", b"co64", b"stsz"):
                first[kind] = body
                if kind == b"stsd":
                    for _, entry, entry_end in _boxes(self.data, body + 8, after):
                        self.look(min(entry + _SAMPLE_ENTRY, entry_end), entry_end)
        if b"stsd" in first:
            self._first_sample(first)

    def _first_sample(self, first: dict[bytes, int]) -> None:
        kind = self.data[first[b"stsd"] + 12 : first[b"stsd"] + 16]
        if kind not in (b"av01", b"hvc1", b"hev1"):
            return
        wide = b"co64" in first
        count, at = struct.unpack_from(">IQ" if wide else ">II", self.data, first[b"co64" if wide else b"stco"] + 4)
        size, samples, one = struct.unpack_from(">III", self.data, first[b"stsz"] + 4)
        if count and samples:
            self._add(kind, [(at, at + (size or one))])

    def _meta(self, start: int, end: int) -> None:
        inside = {kind: (body, after) for kind, body, after in _boxes(self.data, start, end)}
        self.look(start, end)
        if b"iinf" not in inside or b"iloc" not in inside:
            return
        kinds = self._kinds(*inside[b"iinf"])
        for item, spans in self._places(*inside[b"iloc"], inside.get(b"idat", (0, 0))[0]):
            if kinds.get(item) in (b"av01", b"hvc1", b"hev1", b"grid", b"iovl"):
                self._add(kinds[item], spans)

    def _add(self, kind: bytes, spans: list[Span]) -> None:
        self.parts.append((kind, spans))
        self.total += sum(end - start for start, end in spans)
        if self.total > 4 * len(self.data):
            raise ValueError("the same bytes over and over")

    def _kinds(self, start: int, end: int) -> dict[int, bytes]:
        kinds: dict[int, bytes] = {}
        for _, body, _ in _boxes(self.data, start + (8 if self.data[start] else 6), end):
            kinds.setdefault(*struct.unpack_from(">I2x4s" if self.data[body] > 2 else ">H2x4s", self.data, body + 4))
        return kinds

    def _places(self, start: int, end: int, idat: int) -> Iterator[tuple[int, list[Span]]]:
        version, sizes = self.data[start], self.data[start + 4 : start + 6]
        of_offset, of_length, of_base, of_index = sizes[0] >> 4, sizes[0] & 15, sizes[1] >> 4, sizes[1] & 15 if version else 0
        reader = _Numbers(self.data, start + 6, end)
        for _ in range(reader.take(4 if version == 2 else 2)):
            item = reader.take(4 if version == 2 else 2)
            inside_idat = version > 0 and reader.take(2) & 15 == 1
            reader.take(2)
            base = reader.take(of_base) + (idat if inside_idat else 0)
            spans = []
            for _ in range(reader.take(2)):
                reader.take(of_index)
                at = base + reader.take(of_offset)
                length = reader.take(of_length)
                spans.append((at, min(at + length if length else len(self.data), len(self.data))))
            yield item, spans

    def _hvcc(self, start: int, end: int) -> None:
        self.nal_lengths.add((self.data[start + 21] & 3) + 1)
        reader = _Numbers(self.data, start + _HVCC, end)
        for _ in range(reader.take(1)):
            kind = reader.take(1) & 63
            for _ in range(reader.take(2)):
                length = reader.take(2)
                if kind == _HEVC_SEQUENCE:
                    self.sizes.append(_hevc_size(self.data[reader.at : reader.at + length]))
                reader.at += length


class _Numbers:
    """Big-endian numbers one after another."""

    def __init__(self, data: bytes, at: int, end: int) -> None:
        self.data, self.at, self.end = data, at, end

    def take(self, length: int) -> int:
        if self.at + length > self.end:
            raise ValueError
        self.at += length
        return int.from_bytes(self.data[self.at - length : self.at], "big")


class _Bits:
    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self.left -= count
        return self.value >> self.left & ((1 << count) - 1)  # a negative shift is a ValueError

    def exponential(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)


def _canvas(kind: bytes, content: bytes) -> Size:
    at, form = (4 if kind == b"grid" else 10), ">II" if content[1] & 1 else ">HH"
    return struct.unpack_from(form, content, at)


def _av1(content: bytes) -> list[Size]:
    sizes, at = [], 0
    while at < len(content):
        start = content[at]
        at += 2 if start & 4 else 1
        length = len(content) - at
        if start & 2:
            length = 0
            for shift in range(0, 56, 7):
                byte, at = content[at], at + 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
        if start >> 3 & 15 == _AV1_SEQUENCE:
            sizes.append(_av1_size(content[at : at + min(length, 512)]))
        at += length
    return sizes


def _av1_size(header: bytes) -> Size:
    """AV1 specification 5.5.1, up to the size."""
    bits = _Bits(header)
    bits.take(4)
    if bits.take(1):  # reduced_still_picture_header
        bits.take(5)
    else:
        delay = 0
        if bits.take(1):  # timing_info
            bits.take(64)
            if bits.take(1):
                bits.exponential()
            if bits.take(1):  # decoder_model_info
                delay = bits.take(5) + 1
                bits.take(42)
        display_delay = bits.take(1)
        for _ in range(bits.take(5) + 1):
            bits.take(12)
            if bits.take(5) > 7:
                bits.take(1)
            if delay and bits.take(1):
                bits.take(2 * delay + 1)
            if display_delay and bits.take(1):
                bits.take(4)
    wide, high = bits.take(4) + 1, bits.take(4) + 1
    return bits.take(wide) + 1, bits.take(high) + 1


def _hevc(content: bytes, length_size: int) -> list[Size]:
    sizes, at = [], 0
    while at + length_size < len(content):
        length = int.from_bytes(content[at : at + length_size], "big")
        at += length_size
        if content[at] >> 1 & 63 == _HEVC_SEQUENCE:
            sizes.append(_hevc_size(content[at : at + length]))
        at += length
    return sizes


def _hevc_size(unit: bytes) -> Size:
    """H.265 7.3.2.2, up to the size."""
    bits = _Bits(unit[:512].replace(b"\0\0\3", b"\0\0")[2:])
    bits.take(4)
    layers = bits.take(3)
    bits.take(1 + 96)
    if layers:
        present = [bits.take(2) for _ in range(8)][:layers]
        bits.take(sum(88 * (each >> 1) + 8 * (each & 1) for each in present))
    bits.exponential()
    if bits.exponential() == 3:
        bits.take(1)
    return bits.exponential(), bits.exponential()
