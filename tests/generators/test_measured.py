from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.generators.tiny_stable_diffusion import generator_settings
from ti_pipeline.generators import measured
from ti_pipeline.generators.generator import weight_digests
from ti_pipeline.generators.load import load_generator, precisions
from ti_pipeline.generators.measured import Choice, cache_file, choose, known
from ti_pipeline.generators.source import find_source

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measured, "SAMPLES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ti-pipeline"


def test_it_is_measured_once_and_the_next_load_takes_the_same(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = generator_settings(folder, precision="auto")
    first = load_generator(settings)
    (file,) = cache.iterdir()
    chosen = json.loads(file.read_text())
    assert chosen == {"precision": str(first.dtype)[6:], "memory_format": first.memory_format, "threads": torch.get_num_threads()}
    assert str(first.dtype)[6:] in precisions(CPU)
    monkeypatch.setattr(measured, "_measured", lambda *args: pytest.fail("measured again"))
    assert weight_digests(load_generator(settings)) == weight_digests(first)


def test_what_was_chosen_is_what_is_loaded(folder: Path, cache: Path) -> None:
    settings = generator_settings(folder, precision="auto")
    file = cache_file(find_source(settings).digest, precisions(CPU))
    file.parent.mkdir(parents=True)
    for choice in (Choice("float32", "channels_last", torch.get_num_threads()), Choice("bfloat16")):
        file.write_text(json.dumps(vars(choice)))
        generator = load_generator(settings)
        assert (str(generator.unet.dtype)[6:], generator.memory_format) == (choice.precision, choice.memory_format)
        weight = generator.unet.mid_block.resnets[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (choice.memory_format == "channels_last")
    assert load_generator(generator_settings(folder)).memory_format == "contiguous"  # a named precision is not measured


def test_only_what_is_clearly_faster_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*seconds: float) -> Choice:
        times = iter(seconds)
        monkeypatch.setattr(measured, "_seconds", lambda unet, choice, clock=None: next(times))
        return measured._measured(None, ("float32", "bfloat16"))

    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert taken(1.0, 0.9, 0.9) == Choice("float32", threads=1)
    assert taken(1.0, 0.5, 0.45) == Choice("bfloat16", threads=1)
    assert taken(1.0, 0.5, 0.4) == Choice("bfloat16", "channels_last", 1)


def test_fewer_threads_are_taken_where_they_are_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(load: float, *seconds: float) -> int:
        used, times = [], iter(seconds)

        def take(unet: object, choice: Choice, clock: object) -> float:
            used.append(torch.get_num_threads())
            return next(times)

        monkeypatch.setattr(measured, "_seconds", take)
        monkeypatch.setattr(measured.os, "getloadavg", lambda: (load, 0.0, 0.0))
        threads = measured._threads(None, Choice("float32"))
        assert used == [4, 2, 1][: len(seconds)] and torch.get_num_threads() == 4
        return threads

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        assert taken(0.0, 1.0, 0.9) == 4
        assert taken(0.0, 1.0, 0.5, 0.45) == 2
        assert taken(0.0, 1.0, 0.5, 0.4) == 1
        assert taken(3.0) == 4  # on a busy machine nothing is measured
    finally:
        torch.set_num_threads(before)


def test_a_measurement_leaves_the_weights_and_a_damaged_file_is_none(folder: Path, cache: Path) -> None:
    generator = load_generator(generator_settings(folder))
    before = weight_digests(generator)
    choice = choose(generator.unet, "d", ("float32", "bfloat16"))
    assert weight_digests(generator) == before and generator.unet.dtype == torch.float32
    assert known("d", ("float32", "bfloat16")) == choice and known("e", ("float32", "bfloat16")) is None
    cache_file("d", ("float32", "bfloat16")).write_text("{")
    assert known("d", ("float32", "bfloat16")) is None


def test_a_home_that_cannot_be_written_costs_no_run(folder: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    generator = load_generator(generator_settings(folder, precision="auto"))
    assert str(generator.dtype)[6:] in precisions(CPU)
