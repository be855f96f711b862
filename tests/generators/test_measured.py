from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.generators.tiny_stable_diffusion import generator_settings
from ti_pipeline.generators import measured
from ti_pipeline.generators.generator import weight_digests
from ti_pipeline.generators.load import load_generator
from ti_pipeline.generators.loading import precisions
from ti_pipeline.generators.measured import KIND, Choice, choose, depends, known
from ti_pipeline.generators.source import find_source
from ti_pipeline.remembered import place

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measured, "SAMPLES", 1)
    monkeypatch.setattr(measured, "MARGIN", 10)  # what else is at work on the machine must not decide a test
    monkeypatch.setattr(measured.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
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
    file = place(KIND, depends(find_source(settings).digest, precisions(CPU)))
    file.parent.mkdir(parents=True)
    for choice in (Choice("float32", "channels_last", torch.get_num_threads()), Choice("bfloat16")):
        file.write_text(json.dumps(vars(choice)))
        generator = load_generator(settings)
        assert (str(generator.unet.dtype)[6:], generator.memory_format) == (choice.precision, choice.memory_format)
        weight = generator.unet.mid_block.resnets[0].conv1.weight
        assert weight.is_contiguous(memory_format=torch.channels_last) == (choice.memory_format == "channels_last")
    assert load_generator(generator_settings(folder)).memory_format == "contiguous"  # a named precision is not measured


class Machine:
    """A processor whose passes take what `seconds` says of a choice, `disturbed` by others in the first of two turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, threads: int = 1):
        monkeypatch.setattr(measured, "MARGIN", 1.15)
        self.seconds: Callable[[Choice], float] = lambda choice: 1.0
        self.load, self.disturbed, self.turns = 0.0, 1.0, Counter()
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(measured.os, "getloadavg", lambda: (self.load, 0.0, 0.0))
        monkeypatch.setattr(measured, "_seconds", self.take)

    def take(self, generator: object, choice: Choice, clock: object) -> float:
        self.turns[choice] += 1
        return self.seconds(choice) * (self.disturbed if self.turns[choice] == 1 else 1)


def test_only_what_is_clearly_faster_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)

    def taken(bfloat16: float, last: float) -> tuple[Choice, bool]:
        machine.turns.clear()
        machine.seconds = lambda c: (bfloat16 if c.precision == "bfloat16" else 1) * (last if c.memory_format == "channels_last" else 1)
        return measured._measured(None, ("float32", "bfloat16"))

    assert taken(0.9, 0.9) == (Choice("float32", threads=1), True)
    assert taken(0.5, 0.9) == (Choice("bfloat16", threads=1), True)
    assert taken(0.5, 0.8) == (Choice("bfloat16", "channels_last", 1), True)
    machine.disturbed = 3.0  # each is slow once: the least counts, and the choice is not believed for always
    assert taken(0.5, 0.8) == (Choice("bfloat16", "channels_last", 1), False)


def test_fewer_threads_are_taken_where_they_are_clearly_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, threads=4)

    def taken(*seconds: float) -> int:
        machine.turns.clear()
        machine.seconds = lambda choice: dict(zip((4, 2, 1), seconds, strict=True))[choice.threads or 4]
        choice, steady = measured._measured(None, ("float32",))
        assert steady
        return choice.threads

    assert taken(1.0, 0.9, 0.1) == 4
    assert taken(1.0, 0.5, 0.45) == 2
    assert taken(1.0, 0.5, 0.4) == 1


def test_what_a_busy_machine_shows_is_not_kept(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, threads=4)
    machine.seconds = lambda choice: 0.5 if choice.precision == "bfloat16" else 1.0
    generator = replace(load_generator(generator_settings(folder)), digest="d")
    machine.load = 3.0
    assert choose(generator, ("float32", "bfloat16")) == Choice("bfloat16", threads=4)
    assert {choice.memory_format for choice in machine.turns} == {"contiguous"}  # threads and format are not looked at
    assert known("d", ("float32", "bfloat16")) is None
    machine.load, machine.disturbed = 0.0, 2.0
    machine.turns.clear()
    choose(generator, ("float32", "bfloat16"))
    assert known("d", ("float32", "bfloat16")) is None
    machine.disturbed = 1.0
    assert choose(generator, ("float32", "bfloat16")) == known("d", ("float32", "bfloat16"))


def test_a_measurement_leaves_the_weights_and_a_damaged_file_is_none(folder: Path, cache: Path) -> None:
    generator = load_generator(generator_settings(folder))
    before = weight_digests(generator)
    choice = choose(replace(generator, digest="d"), ("float32", "bfloat16"))
    assert weight_digests(generator) == before and generator.unet.dtype == torch.float32
    assert known("d", ("float32", "bfloat16")) == choice and known("e", ("float32", "bfloat16")) is None
    place(KIND, depends("d", ("float32", "bfloat16"))).write_text("{")
    assert known("d", ("float32", "bfloat16")) is None


def test_a_home_that_cannot_be_written_costs_no_run(folder: Path, cache: Path) -> None:
    cache.parent.write_text("a file where the folder should be")
    generator = load_generator(generator_settings(folder, precision="auto"))
    assert str(generator.dtype)[6:] in precisions(CPU)
