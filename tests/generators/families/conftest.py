from __future__ import annotations

from pathlib import Path

import pytest

from tests.generators.tiny_stable_diffusion import load_tiny
from tests.generators.tiny_stable_diffusion_xl import write_folder
from ti_pipeline.generators.generator import Generator


@pytest.fixture(scope="session")
def xl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("generators") / "xl")


@pytest.fixture(scope="session")
def xl(xl_folder: Path) -> Generator:
    """Stable Diffusion XL with small widths and random weights."""
    return load_tiny(xl_folder)
