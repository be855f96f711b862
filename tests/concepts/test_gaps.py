from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pillow_heif import register_heif_opener

from ti_pipeline.concepts.pictures import PictureError, decode

register_heif_opener()
WHITE = (255, 255, 255)
KINDS = {
    "jpg": {"format": "JPEG", "quality": 90},
    "optimised.jpg": {"format": "JPEG", "quality": 90, "optimize": True},
    "progressive.jpg": {"format": "JPEG", "quality": 90, "progressive": True},
    "restarts.jpg": {"format": "JPEG", "quality": 90, "restart_marker_rows": 1},
    "png": {"format": "PNG"},
    "webp": {"format": "WEBP", "quality": 85},
    "lossless.webp": {"format": "WEBP", "lossless": True, "method": 0},
    "avif": {"format": "AVIF", "quality": 80},
    "heic": {"format": "HEIF", "quality": 80},
    "tif": {"format": "TIFF"},
    "lzw.tif": {"format": "TIFF", "compression": "tiff_lzw"},
    "deflate.tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    "gif": {"format": "GIF"},
    "bmp": {"format": "BMP"},
    "jp2": {"format": "JPEG2000"},
}


def verdict(path) -> str:
    try:
        return "; ".join(decode(path, WHITE).warnings)
    except PictureError as error:
        return str(error)


@pytest.fixture
def large(photo) -> Image.Image:
    return photo.resize((512, 384), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ground", [None, 0, 255])
def test_a_whole_picture_has_no_gap_on_plain_grounds_either(kind, ground, large, tmp_path):
    picture = large
    if ground is not None:
        picture = Image.new("RGB", (1500, 1500), (ground,) * 3)
        picture.paste(large, (600, 300))
    picture.save(tmp_path / f"a.{kind}", **KINDS[kind])
    assert verdict(tmp_path / f"a.{kind}") == ""


# the lossless coder of WebP writes zeros for flat grounds too, so that a short tail may be one
@pytest.mark.parametrize(
    ("kind", "share"), [(kind, share) for kind in KINDS for share in (0.4, 0.9) if (kind, share) != ("lossless.webp", 0.9)]
)
def test_a_tail_of_zeros_is_said_or_refused(kind, share, large, tmp_path):
    path = tmp_path / f"a.{kind}"
    large.save(path, **KINDS[kind])
    content = path.read_bytes()
    at = int(share * len(content))
    path.write_bytes(content[:at] + bytes(len(content) - at))
    assert "missing" in verdict(path) or "damaged" in verdict(path)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith("jpg")])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_cut_jpeg_is_refused_with_an_end_marker_too(kind, share, large, tmp_path):
    path = tmp_path / f"a.{kind}"
    large.save(path, **KINDS[kind])
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))] + b"\xff\xd9")
    assert verdict(path) == "truncated or damaged JPEG: its data end before the picture does"


def test_a_jpeg_cut_at_a_restart_is_refused(large, tmp_path):
    path = tmp_path / "a.jpg"
    large.save(path, **KINDS["restarts.jpg"])
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\xff\xd3")] + b"\xff\xd9")
    assert "its data end before" in verdict(path)


@pytest.mark.parametrize("after", [b"", b"\xff", b"\xff\xd9" + bytes(5000), b"\xff\xd9 a film of the same moment"])
def test_a_whole_jpeg_is_taken_with_or_without_its_end(after, large, tmp_path):
    path = tmp_path / "a.jpg"
    large.save(path, quality=90)
    whole = decode(path, WHITE).image
    path.write_bytes(path.read_bytes()[:-2] + after)
    found = decode(path, WHITE)
    assert found.image.tobytes() == whole.tobytes()
    assert found.warnings == (() if len(after) > 2 else ("its end marker is missing; the picture is whole",))


def test_a_black_frame_is_no_gap(large, tmp_path):
    values = np.asarray(large).copy()
    values[300:] = 0
    Image.fromarray(values).save(tmp_path / "a.tif")
    assert verdict(tmp_path / "a.tif") == ""
