"""A contact sheet: pictures side by side, each with a line under it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

EDGE, GAP, LINE = 256, 4, 14  # largest pixels of a picture's edge, between two, and of a line of text


def contact_sheet(pictures: Sequence[Image.Image], lines: Sequence[str]) -> Image.Image:
    """As square as their number allows, row by row; an RGB picture. `lines` are short: they are cut off at a picture's edge."""
    columns = math.ceil(math.sqrt(len(pictures)))
    edge = min(EDGE, max(max(picture.size) for picture in pictures))
    width, height = edge + GAP, edge + LINE + GAP
    sheet = Image.new("RGB", (columns * width - GAP, math.ceil(len(pictures) / columns) * height - GAP), "white")
    font = ImageFont.load_default(size=10)
    for index, (picture, line) in enumerate(zip(pictures, lines, strict=True)):
        cell = Image.new("RGB", (edge, edge + LINE), "white")
        small = picture.copy()
        small.thumbnail((edge, edge), Image.Resampling.LANCZOS)
        cell.paste(small, ((edge - small.width) // 2, (edge - small.height) // 2))
        ImageDraw.Draw(cell).text((1, edge + 1), line, fill="black", font=font)
        sheet.paste(cell, (index % columns * width, index // columns * height))
    return sheet
