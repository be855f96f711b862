from __future__ import annotations

import struct
import zlib

import pytest

from ti_pipeline.concepts.pictures import PictureError, decode

WHITE = (255, 255, 255)
LARGE = zlib.compress(bytes(3 << 20))


def chunk(kind: bytes, data: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


@pytest.fixture
def parts(photo, tmp_path):
    """A PNG as (what comes before the picture's data, those and the end)."""
    photo.save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    return content[: 8 + 25], content[8 + 25 :]


@pytest.mark.parametrize(
    ("note", "warning"),
    [
        (chunk(b"zTXt", b"workflow\0\0" + LARGE), "very large text in it (zTXt)"),
        (chunk(b"iTXt", b"workflow\0\1\0en\0\0" + LARGE), "very large text in it (iTXt)"),
        (chunk(b"tEXt", b"workflow\0" + b"x" * (2 << 20)), "very large text in it (tEXt)"),
        (chunk(b"iCCP", b"profile\0\0" + LARGE), "its colour profile is very large; taken for sRGB"),
        (chunk(b"tEXt", b"Comment\0hello", wrong=1), "damaged text in it (tEXt)"),
        (chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"x"), wrong=1), "its colour profile is damaged"),
        (chunk(b"eXIf", b"MM\0*", wrong=1), "damaged note in it (eXIf)"),
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_a_whole_picture_is_taken_whatever_is_noted_in_it(note, warning, behind, parts, photo, tmp_path):
    before, data = parts
    content = before + data[:-12] + note + data[-12:] if behind else before + note + data
    (tmp_path / "a.png").write_bytes(content)
    found = decode(tmp_path / "a.png", WHITE)
    assert found.image.tobytes() == photo.tobytes()
    assert len(found.warnings) == 1 and warning in found.warnings[0]


def test_a_small_note_is_kept_and_not_spoken_of(parts, photo, tmp_path):
    exif = b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n      26\n" + b"4d4d002a000000080001011200030000000100060000".ljust(52, b"0") + b"\n"
    )
    (tmp_path / "a.png").write_bytes(parts[0] + chunk(b"zTXt", exif) + parts[1])
    found = decode(tmp_path / "a.png", WHITE)
    assert found.orientation == 6 and found.image.size == photo.size[::-1] and found.warnings == ()


def test_a_picture_whose_own_checksum_is_wrong_is_refused(parts, tmp_path):
    before, data = parts
    for content in (before[:-1] + b"\0" + data, before + data[:-16] + b"nope" + data[-12:]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(PictureError, match="damaged PNG: the checksum of its (IHDR|IDAT) is wrong"):
            decode(tmp_path / "a.png", WHITE)


def test_without_its_end_the_picture_is_taken(parts, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(parts[0] + parts[1][:-12])
    found = decode(tmp_path / "a.png", WHITE)
    assert found.image.tobytes() == photo.tobytes() and found.warnings == ("its end is missing; the picture is whole",)
