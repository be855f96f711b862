"""From any stored colours to 8-bit sRGB on an opaque background."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab "}
_SRGB = ImageCms.createProfile("sRGB")


class Unconvertible(Exception):
    """The stored colours have no one reading as sRGB; the text says what to do."""


def to_srgb(picture: Image.Image) -> tuple[Image.Image, Image.Image | None, str]:
    """Colours as RGB in sRGB by the embedded ICC profile, the alpha channel if there is one, and a warning or nothing.

    Without a profile, or with one that cannot be used (the warning says so), the colours are read as sRGB.
    """
    stored = picture.info.get("icc_profile")
    colours, alpha = _apart(picture)
    warning = ""
    if stored:
        try:
            return _transform(colours, ImageCms.ImageCmsProfile(io.BytesIO(stored))), alpha, ""
        except (OSError, ValueError, ImageCms.PyCMSError):
            warning = "its colour profile cannot be used; taken for sRGB"
    if colours.mode == "LAB":
        return _transform(colours, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))), alpha, warning
    return colours.convert("RGB"), alpha, warning


def on_background(colours: Image.Image, alpha: Image.Image | None, background: tuple[int, int, int]) -> Image.Image:
    """RGB `colours` laid on one colour."""
    if alpha is None:
        return colours
    ground = Image.new("RGB", colours.size, background)
    ground.paste(colours, mask=alpha)
    return ground


def _apart(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours as L, RGB, CMYK or LAB with 8 bits, and the alpha channel."""
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode in ("I", "F"):
        raise Unconvertible("32-bit values have no fixed white; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        gray = picture.mode in ("1", "L", "LA", "La")
        whole = picture.convert("LA" if gray else "RGBA")
        return whole.convert("L" if gray else "RGB"), whole.getchannel("A")
    if picture.mode in _SPACES:
        return picture, None
    return picture.convert("L" if picture.mode == "1" else "RGB"), None


def _from_16_bits(picture: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Pillow's own conversion clips at 255 instead of dividing by 257."""
    values = np.asarray(picture).astype(np.uint32)
    clear = picture.info.get("transparency")
    alpha = None if clear is None else Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)), alpha


def _transform(colours: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    """Relative colorimetric with black-point compensation. Raises ValueError for a profile of another colour space."""
    if profile.profile.xcolor_space != _SPACES[colours.mode]:
        raise ValueError(f"a profile for {profile.profile.xcolor_space} on {colours.mode}")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(profile, _SRGB, colours.mode, "RGB", intent, flags).apply(colours)
