from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from pillow_heif import register_heif_opener

from tests.concepts.conftest import PHOTOS
from ti_pipeline.concepts.coded import Misbuilt, coded
from ti_pipeline.concepts.pictures import PictureError, decode, read_header

register_heif_opener()
WHITE = (255, 255, 255)


def encoded(picture, **how) -> bytes:
    file = io.BytesIO()
    picture.save(file, **how)
    return file.getvalue()


KINDS = {
    "avif": ("AVIF", {"format": "AVIF"}, b"ispe", 8),
    "heic": ("HEIC", {"format": "HEIF"}, b"ispe", 8),
    "jp2": ("JPEG2000", {"format": "JPEG2000"}, b"ihdr", 4),
    "j2k": ("JPEG2000", {"format": "JPEG2000", "no_jp2": True}, None, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_is_that_of_the_coded_data_and_they_are_found(kind, photo):
    name, how, _, _ = KINDS[kind]
    content = encoded(photo.resize((601, 433)), **how)
    found = coded(content, name)
    assert 0 <= found.size[0] - 601 < 16 and 0 <= found.size[1] - 433 < 16  # HEVC rounds up
    assert sum(end - start for start, end in found.spans) > 0.8 * len(content)


def test_frames_and_transparency_have_sizes_too(photo):
    for picture, how in ((photo, {"save_all": True, "append_images": [photo.rotate(180)]}), (photo.convert("RGBA"), {})):
        assert coded(encoded(picture, format="AVIF", **how), "AVIF").size == photo.size
        assert coded(encoded(picture, format="HEIF", **how), "HEIC").size == photo.size


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "j2k"])
def test_a_container_that_understates_is_refused_by_its_size(kind, photo, tmp_path):
    _, how, box, offset = KINDS[kind]
    content = bytearray(encoded(photo.resize((800, 600)), **how))
    at = content.index(box) + offset
    content[at : at + 8] = struct.pack(">II", 64, 64)
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    for look in (read_header, lambda path: decode(path, WHITE)):
        with pytest.raises(PictureError, match="declares 64 × 64 pixels but holds 800 × 6"):
            look(path)


def test_192_megapixels_behind_64_pixels_are_not_decoded(monkeypatch):
    path = PHOTOS / "pictures" / "declares-64.avif"
    monkeypatch.setattr("PIL.AvifImagePlugin.AvifImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="declares 64 × 64 pixels but holds 16000 × 12000"):
        decode(path, WHITE)


def test_a_tiff_with_a_tile_that_dwarfs_it_is_refused(tmp_path):
    entries = [(256, 64), (257, 64), (258, 8), (259, 8), (262, 1), (277, 1), (322, 30000), (323, 30000), (324, 8), (325, 8)]
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(4)
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + bytes(8) + table)
    with pytest.raises(PictureError, match="holds 30000 × 30000"):
        read_header(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_containers_raise_nothing_else(kind, photo):
    name, how, _, _ = KINDS[kind]
    whole = encoded(photo, **how)
    noise = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole[: noise.integers(8, len(whole))])
        for at in noise.integers(0, min(len(content), 700), 5):
            content[at] = noise.integers(256)
        try:
            coded(bytes(content), name)
        except Misbuilt:
            pass
    with pytest.raises(Misbuilt):
        coded(bytes(64), name)
