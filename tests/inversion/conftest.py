from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from ti_pipeline import params
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import Manifest, read_manifest, write_manifest
from ti_pipeline.concepts.validation import validate_concept
from ti_pipeline.generators.generator import Generator
from ti_pipeline.workspace import Workspace

SETTINGS = Path(__file__).parents[2] / "params.yaml"
SMALL = ("train.steps=6", "train.batch_size=2", "train.checkpoint_every=2", "generator.device=cpu", "generator.precision=float32")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bits are a promise of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("generators") / "tiny")


@pytest.fixture(scope="session")
def generator(folder: Path) -> Generator:
    return load_tiny(folder)


@pytest.fixture
def settings() -> Callable[..., params.Params]:
    return lambda *overrides: params.load(SETTINGS, (*SMALL, *overrides))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path, "concepts")


@pytest.fixture
def validated(workspace: Workspace) -> Callable[..., Manifest]:
    """Makes a concept of three drawn pictures, validates it and reads its manifest."""

    def make(slug: str = "mug", about: str = "initializer: mug\n", hue: int = 0) -> Manifest:
        folder = workspace.concepts / slug
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(3):
            pixels = np.random.default_rng([i, hue]).integers(0, 256, (12, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        (folder / "concept.yaml").write_text(about)
        concept, checks = load_concept(folder), params.load(SETTINGS).validate_
        write_manifest(workspace, concept, validate_concept(concept, checks, None), checks.background, "any")
        return read_manifest(workspace, slug)

    return make
