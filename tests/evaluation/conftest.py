from __future__ import annotations

from pathlib import Path

import pytest

from tests.sight.conftest import judge  # noqa: F401
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.load import load_generator
from ti_pipeline.params import Params, load
from ti_pipeline.sight.ranker import Ranker, load_ranker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def params() -> Params:
    """The repository's own, with little to do."""
    small = ["samples=6", "samples_per_prompt=2", "steps=2", "batch_size=8", "bootstrap=200"]
    return load(ROOT / "params.yaml", [*(f"evaluate.{each}" for each in small), "generator.device=cpu"])


@pytest.fixture(scope="session")
def generator(params: Params) -> Generator:
    return load_generator(params.generator)


@pytest.fixture(scope="session")
def ranker(params: Params) -> Ranker:
    return load_ranker(params.ranker, "cpu")
