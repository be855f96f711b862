"""Candidates on disk: PNG files with their recipe inside, and the table that says which of them count."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ti_pipeline.candidates.recipe import Recipe, recipe_json
from ti_pipeline.files import atomic

RECIPE_KEY = "ti-pipeline"
PARAMETERS_KEY = "parameters"

SCHEMA = pa.schema(
    [
        pa.field("concept", pa.string(), nullable=False),
        pa.field("brief_index", pa.int32(), nullable=False),
        pa.field("brief", pa.string(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("scoring_text", pa.string(), nullable=False),
        pa.field("candidate", pa.int32(), nullable=False),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("solver", pa.string(), nullable=False),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("guidance_scale", pa.float64(), nullable=False),
        pa.field("negative_prompt", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),  # name in the table's own folder
        pa.field("digest", pa.string(), nullable=False),  # SHA-256 of the file
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
    ]
)


def write_picture(path: Path, picture: Image.Image, recipe: Recipe, parameters: str) -> None:
    """Whole or not at all, with its recipe for programs and, as `parameters_text` has it, for other tools. Text that is not Latin-1 goes
    into an iTXt chunk."""
    texts = PngInfo()
    texts.add_text(PARAMETERS_KEY, parameters)
    texts.add_text(RECIPE_KEY, recipe_json(recipe))
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", pnginfo=texts)


def stands(path: Path, recipe: Recipe) -> bool:
    """Whether the file is there, whole by its checksums, and was made by this recipe."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            same = picture.info.get(RECIPE_KEY) == recipe_json(recipe)
            picture.verify()
            return same
    except (OSError, SyntaxError, ValueError):
        return False


def sweep(folder: Path, keep: set[str]) -> None:
    """Remove the pictures that the table does not name, half-written ones included; only after the table is written.

    What CLIP saw in them lay here once, and goes too: it is no candidate.
    """
    for path in (*folder.glob("*.png"), *folder.glob("*.safetensors")):
        if path.name not in keep:
            path.unlink(missing_ok=True)
