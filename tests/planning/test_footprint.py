from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import write_folder as write_published
from benchmarks.report import RESULTS
from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder
from ti_pipeline.generators.source import Source, find_source
from ti_pipeline.planning.footprint import Peak, drawing_bytes, hollow, training_bytes
from ti_pipeline.planning.outline import outline

CPU = torch.device("cpu")


def test_the_most_that_was_there_is_counted_and_what_is_gone_is_not() -> None:
    weight = torch.randn(1000, 1000)
    with Peak([weight]) as peak:
        x = torch.ones(10, 1000)  # 40,000 bytes
        for _ in range(5):
            x = x @ weight  # and as many again, of which the one before goes
        weight.view(-1)  # a view of what does not count
    assert (peak.most, peak.now) == (80_000, 40_000)


@pytest.mark.parametrize("write", [write_folder, write_flux])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_passes_without_content_take_what_those_with_it_do(write, checkpointing: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    settings = generator_settings(folder, checkpointing=checkpointing)
    real = load_tiny(folder, checkpointing=checkpointing)
    size = real.latents_of(96, 64)
    expected = training_bytes(real, 2, 1), drawing_bytes(real, size, 2, 1, True)
    assert drawing_bytes(real, real.latent_shape, 2, 1, True) < expected[1]
    with hollow(outline(find_source(settings), settings, CPU)) as shapes:
        assert (training_bytes(shapes, 2, 1), drawing_bytes(shapes, size, 2, 1, True)) == expected


def test_a_sample_takes_what_was_measured_on_a_gpu(tmp_path: Path) -> None:
    """Stable Diffusion 1.5 at full width, 512 pixels, bfloat16: a further sample of a pack within 10 %."""
    rows = {row["pack"]: row["memory MB"] for row in json.loads((RESULTS / "training-sd15.json").read_text())["rows"][2:]}
    measured = (rows[16] - rows[1]) / (15 * 4) * 2**20
    write_published("stable-diffusion-1.5", tmp_path, small=False)
    settings = generator_settings(tmp_path, precision="bfloat16")
    source = Source("sd15", tmp_path, "folder")
    generator = source.family.load(source, settings.model_copy(update={"device": "meta"}))  # with attention as it is on a GPU
    with hollow(generator) as shapes:
        each = training_bytes(shapes, 2, 1) - training_bytes(shapes, 1, 1)
    assert each == pytest.approx(measured, rel=0.1)
