from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from ti_pipeline.concepts.pictures import PictureError, decode, open_picture

WHITE, GREEN = (255, 255, 255), (0, 255, 0)


def swapped_srgb() -> bytes:
    """sRGB with the red and the green primary exchanged: what is stored as red is green."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile.replace(b"rXYZ", b"-tmp", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"-tmp", b"gXYZ", 1)


def linear_gray() -> bytes:
    """A gray profile with gamma 1."""
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv" + bytes(8)
    tags = struct.pack(">I", 2) + b"wtpt" + struct.pack(">II", 156, 20) + b"kTRC" + struct.pack(">II", 176, 12)
    size = struct.pack(">I", 188)
    head = size + bytes(4) + b"\x04\x30\0\0" + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    return head + tags + white + curve


def pixel(path: Path, background: tuple[int, int, int] = WHITE) -> tuple[int, ...]:
    return open_picture(path, background).getpixel((0, 0))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif"])
def test_icc_profile_is_applied(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (64, 64), (200, 30, 60)).save(path, icc_profile=swapped_srgb())
    assert pixel(path) == pytest.approx((30, 200, 60), abs=6)


def test_icc_profile_is_applied_to_palettes_and_below_transparency(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), (200, 30, 60)).quantize(4).save(path, icc_profile=swapped_srgb())
    assert pixel(path) == pytest.approx((30, 200, 60), abs=3)
    Image.new("RGBA", (64, 64), (200, 30, 60, 0)).save(path, icc_profile=swapped_srgb())
    assert pixel(path, GREEN) == GREEN  # the background is sRGB as it stands


def test_gray_profile(tmp_path):
    path = tmp_path / "a.png"
    for picture in (Image.new("L", (64, 64), 128), Image.new("LA", (64, 64), (128, 255))):
        picture.save(path, icc_profile=linear_gray())
        assert pixel(path) == pytest.approx((188, 188, 188), abs=2)  # sRGB's curve at 128 / 255


@pytest.mark.parametrize("profile", [b"nonsense", linear_gray()], ids=["broken", "of another colour space"])
def test_a_profile_that_cannot_be_used_is_a_warning(profile, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 64), (200, 30, 60)).save(path, icc_profile=profile)
    decoded = decode(path, WHITE)
    assert decoded.image.getpixel((0, 0)) == (200, 30, 60)
    assert "profile" in decoded.warnings[0]


def test_16_bits_are_scaled_and_not_clipped(tmp_path):
    path = tmp_path / "a.png"
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(ramp).save(path)
    values = np.asarray(open_picture(path, WHITE))
    assert np.abs(values - (ramp / 257)[..., None]).max() <= 0.5
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    assert np.array_equal(np.asarray(open_picture(tmp_path / "a.tif", WHITE)), values)


def test_32_bits_are_refused_with_advice(tmp_path):
    path = tmp_path / "a.tif"
    Image.new("F", (64, 64), 0.5).save(path)
    with pytest.raises(PictureError, match="8 or 16 bits"):
        open_picture(path, WHITE)


def transparent(kind: str) -> tuple[Image.Image, dict]:
    if kind == "RGBA":
        return Image.new("RGBA", (64, 64), (255, 0, 0, 0)), {}
    if kind == "LA":
        return Image.new("LA", (64, 64), (9, 0)), {}
    if kind == "P":
        return Image.new("RGB", (64, 64), (200, 30, 60)).quantize(4), {"transparency": 0}
    if kind == "L":
        return Image.new("L", (64, 64), 7), {"transparency": 7}
    if kind == "RGB":
        return Image.new("RGB", (64, 64), (7, 8, 9)), {"transparency": (7, 8, 9)}
    return Image.fromarray(np.full((64, 64), 700, dtype=np.uint16)), {"transparency": 700}


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "L", "RGB", "I;16"])
def test_transparency_shows_the_background(kind, tmp_path):
    picture, how = transparent(kind)
    picture.save(tmp_path / "a.png", **how)
    assert pixel(tmp_path / "a.png", GREEN) == GREEN


def test_half_transparent_is_half_background(tmp_path):
    for suffix in (".png", ".webp", ".avif"):
        Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(tmp_path / f"a{suffix}")
        assert pixel(tmp_path / f"a{suffix}") == pytest.approx((255, 127, 127), abs=6)
