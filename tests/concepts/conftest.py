"""Small real photographs, the repository's own params, and folders to put pictures into."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ti_pipeline.params import Params, load

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "tests" / "data"


@pytest.fixture
def params() -> Params:
    return load(ROOT / "params.yaml")


@pytest.fixture
def photo() -> Image.Image:
    """A photograph, RGB, portrait or landscape but never square, so that a wrong turn shows."""
    with Image.open(PHOTOS / "duck-toy" / "00.jpg") as picture:
        return picture.convert("RGB").crop((0, 0, 128, 96))


@pytest.fixture
def duck(tmp_path: Path) -> Path:
    """A concept's folder with four different photographs of one thing, under `tmp_path/concepts`."""
    return Path(shutil.copytree(PHOTOS / "duck-toy", tmp_path / "concepts" / "duck-toy"))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes an empty concept folder; keywords become text files in it."""

    def make(name: str = "thing", **texts: str) -> Path:
        path = tmp_path / "concepts" / name
        path.mkdir(parents=True)
        for stem, text in texts.items():
            (path / f"{stem}.yaml").write_text(text, encoding="utf-8")
        return path

    return make
