from __future__ import annotations

import io
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageSequence
from pillow_heif import register_heif_opener

from ti_pipeline.concepts.pictures import PictureError, decode, open_picture, read_header

register_heif_opener()  # the tests write HEIC through Pillow
WHITE = (255, 255, 255)
TRANSPOSE = Image.Transpose
STORED = {  # how a picture with this orientation lies in its file
    1: None,
    2: TRANSPOSE.FLIP_LEFT_RIGHT,
    3: TRANSPOSE.ROTATE_180,
    4: TRANSPOSE.FLIP_TOP_BOTTOM,
    5: TRANSPOSE.TRANSPOSE,
    6: TRANSPOSE.ROTATE_90,
    7: TRANSPOSE.TRANSVERSE,
    8: TRANSPOSE.ROTATE_270,
}
# name -> (format as we call it, suffix, Pillow's arguments, mode to convert to first, mean difference allowed)
KINDS = {
    "jpeg": ("JPEG", ".jpg", {"format": "JPEG", "quality": 95}, "RGB", 4),
    "progressive": ("JPEG", ".jpeg", {"format": "JPEG", "quality": 95, "progressive": True}, "RGB", 4),
    "gray jpeg": ("JPEG", ".jpg", {"format": "JPEG", "quality": 95}, "L", 4),
    "cmyk": ("JPEG", ".jpg", {"format": "JPEG", "quality": 95}, "CMYK", 4),
    "png": ("PNG", ".png", {"format": "PNG"}, "RGB", 0),
    "palette": ("PNG", ".png", {"format": "PNG"}, "P", 12),
    "bilevel": ("PNG", ".png", {"format": "PNG"}, "1", 0),
    "webp": ("WEBP", ".webp", {"format": "WEBP", "quality": 95}, "RGB", 5),
    "webp lossless": ("WEBP", ".webp", {"format": "WEBP", "lossless": True}, "RGB", 0),
    "avif": ("AVIF", ".avif", {"format": "AVIF", "quality": 95}, "RGB", 4),
    "heic": ("HEIC", ".heic", {"format": "HEIF", "quality": 95}, "RGB", 4),
    "tiff": ("TIFF", ".tif", {"format": "TIFF"}, "RGB", 0),
    "tiff lzw": ("TIFF", ".tiff", {"format": "TIFF", "compression": "tiff_lzw"}, "RGB", 0),
    "tiff cmyk": ("TIFF", ".tif", {"format": "TIFF"}, "CMYK", 1),
    "tiff lab": ("TIFF", ".tif", {"format": "TIFF"}, "LAB", 3),
    "gif": ("GIF", ".gif", {"format": "GIF"}, "RGB", 12),
    "bmp": ("BMP", ".bmp", {"format": "BMP"}, "RGB", 0),
    "jpeg 2000": ("JPEG2000", ".jp2", {"format": "JPEG2000"}, "RGB", 0),
    "jpeg 2000 bare": ("JPEG2000", ".j2k", {"format": "JPEG2000", "no_jp2": True}, "L", 0),
}


def save(path: Path, picture: Image.Image, **how) -> Path:
    picture.save(path, **how)
    return path


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other.convert("RGB"), dtype=float)).mean())


def in_mode(photo: Image.Image, mode: str) -> Image.Image:
    if mode == "P":
        return photo.quantize(256)
    if mode == "LAB":
        return ImageCms.profileToProfile(photo, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    return photo.convert(mode)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_picture_that_went_in(kind, photo, tmp_path):
    name, suffix, how, mode, allowed = KINDS[kind]
    path = save(tmp_path / f"a{suffix}", in_mode(photo, mode), **how)
    header, picture = read_header(path), open_picture(path, WHITE)
    assert (header.format, header.width, header.height) == (name, 128, 96)
    assert picture.mode == "RGB"
    expected = photo if mode in ("RGB", "P", "CMYK", "LAB") else photo.convert(mode)
    assert difference(picture, expected) <= allowed


def test_mpo_from_a_phone_gives_its_first_picture(photo, tmp_path):
    path = save(tmp_path / "a.jpg", photo, format="MPO", save_all=True, append_images=[photo.rotate(90, expand=True)], quality=95)
    assert read_header(path).format == "MPO"
    assert difference(open_picture(path, WHITE), photo) < 4


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "avif", "heic", "tiff"])
def test_turned_upright_by_exif(kind, orientation, photo, tmp_path):
    name, suffix, how, _, allowed = KINDS[kind]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo.transpose(STORED[orientation]) if STORED[orientation] is not None else photo
    decoded = decode(save(tmp_path / f"a{suffix}", stored, exif=exif.tobytes() if name != "TIFF" else exif, **how), WHITE)
    assert decoded.orientation == orientation
    assert difference(decoded.image, photo) <= allowed


def test_damaged_exif_is_no_reason_to_refuse(photo, tmp_path):
    exif = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01\x03\x00"
    decoded = decode(save(tmp_path / "a.jpg", photo, exif=exif, quality=95), WHITE)
    assert decoded.orientation == 1 and difference(decoded.image, photo) < 4


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("bilevel",)])
@pytest.mark.parametrize("share", [0.02, 0.4, 0.8])
def test_truncated_is_refused(kind, share, photo, tmp_path):
    name, suffix, how, mode, _ = KINDS[kind]
    whole = save(tmp_path / f"a{suffix}", in_mode(photo, mode), **how).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(PictureError, match=f"truncated or damaged {name}"):
        decode(cut, WHITE)


def test_empty_and_foreign_files_are_refused(tmp_path):
    path = tmp_path / "a.jpg"
    for content, reason in {b"": "empty", b"<html>404</html>": "not a picture", b"BM" + bytes(80): "damaged BMP"}.items():
        path.write_bytes(content)
        with pytest.raises(PictureError, match=reason):
            read_header(path)
    with pytest.raises(PictureError, match="truncated or damaged"):
        read_header(tmp_path)  # a folder


@pytest.mark.parametrize(
    "start",
    [
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"II*\x00",
        b"RIFF____WEBP",
        b"\x00\x00\x00\x20ftypavif",
        b"\x00\x00\x00\x20ftypheic",
        b"BM",
        b"\xff\x4f\xff\x51",
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    ],
)
def test_noise_behind_a_signature_raises_nothing_else(start, tmp_path):
    noise = np.random.default_rng(0)
    path = tmp_path / "a.tif"
    for size in (0, 1, 7, 60, 3000):
        path.write_bytes(start + noise.bytes(size))
        with pytest.raises(PictureError):
            decode(path, WHITE)


def test_camera_raw_is_not_taken_for_its_preview(photo, tmp_path):
    with pytest.raises(PictureError, match="camera raw"):
        read_header(save(tmp_path / "a.nef", photo, format="TIFF"))


def test_heic_and_avif_are_told_apart_behind_a_common_brand(photo, tmp_path):
    path = save(tmp_path / "a.avif", photo, format="AVIF")
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"mif1" + content[12:])
    assert read_header(path).format == "AVIF"


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def gif_of(width: int, height: int) -> bytes:
    picture = io.BytesIO()
    Image.new("P", (8, 8)).save(picture, "GIF")
    return picture.getvalue()[:6] + struct.pack("<HH", width, height) + picture.getvalue()[10:]


def jpeg_of(width: int, height: int) -> bytes:
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "JPEG")
    content, at = picture.getvalue(), picture.getvalue().index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


@pytest.mark.parametrize("make", [png_of, gif_of, jpeg_of])
def test_a_bomb_shows_in_its_header_and_takes_no_memory(make, tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(make(60000, 60000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_header(path).megapixels == 3600
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_webp_bomb_is_refused_by_its_header(tmp_path):
    path = tmp_path / "bomb.webp"
    canvas = bytes(4) + (16383).to_bytes(3, "little") * 2
    path.write_bytes(b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + canvas)
    with pytest.raises(PictureError, match="larger than"):
        read_header(path)


def test_frames_are_counted_and_the_first_is_taken(photo, tmp_path):
    others = [photo.rotate(180), photo.rotate(90)]
    for suffix in (".gif", ".webp", ".png", ".tif"):
        path = save(tmp_path / f"a{suffix}", photo, save_all=True, append_images=others)
        assert read_header(path).frames == 3
        with Image.open(path) as whole:
            first = next(ImageSequence.Iterator(whole)).convert("RGB")
            assert difference(open_picture(path, WHITE), first) < 2


@pytest.mark.parametrize("suffix", [".tif", ".gif"])
def test_damage_behind_the_first_page_leaves_the_first(suffix, photo, tmp_path):
    path = save(tmp_path / f"a{suffix}", photo, save_all=True, append_images=[photo.rotate(180), photo.rotate(90)])
    content = path.read_bytes()
    first = open_picture(path, WHITE)
    if suffix == ".tif":
        directory = int.from_bytes(content[4:8], "little")
        entries = int.from_bytes(content[directory : directory + 2], "little")
        following = directory + 2 + 12 * entries  # where the next directory's place stands
        path.write_bytes(content[:following] + (len(content) + 9).to_bytes(4, "little") + content[following + 4 :])
    else:
        path.write_bytes(content[: int(0.9 * len(content))])
    assert read_header(path).frames == {".tif": None, ".gif": 3}[suffix]  # a GIF's are counted without their data
    found = decode(path, WHITE)
    assert found.image.tobytes() == first.tobytes()
