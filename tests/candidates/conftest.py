from __future__ import annotations

import pytest

from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from ti_pipeline.generators.generator import Generator


@pytest.fixture(scope="session")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Stable Diffusion 1.x with small widths and random weights."""
    return load_tiny(write_folder(tmp_path_factory.mktemp("generators") / "tiny"))
