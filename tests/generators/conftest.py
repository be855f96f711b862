from __future__ import annotations

from pathlib import Path

import pytest

from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from ti_pipeline.generators.generator import Generator


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("generators") / "tiny")


@pytest.fixture(scope="session")
def generator(folder: Path) -> Generator:
    return load_tiny(folder)
