from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ti_pipeline.errors import ParamsError
from ti_pipeline.words.steps import read_steps, steps_in, write_steps
from ti_pipeline.words.word import ONLY, Word

ABOUT = {"token": "<mug>", "initializer": "cup", "steps": "200"}


def test_words_come_back_by_their_steps(tmp_path: Path) -> None:
    words = {
        200: Word("<mug>", {ONLY: torch.ones(2, 4)}),
        50: Word("<mug>", {ONLY: torch.full((1, 4), 0.1)}, adapters={"a": torch.ones(3)}),
    }
    write_steps(tmp_path / "a.safetensors", words, ABOUT)
    found, about = read_steps(tmp_path / "a.safetensors")
    assert list(found) == [50, 200] == steps_in(tmp_path / "a.safetensors")[0] and about["steps"] == "200"
    for step, word in found.items():
        assert torch.equal(word.rows[ONLY], words[step].rows[ONLY]) and (word.token, word.class_words) == ("<mug>", "cup")
    assert torch.equal(found[50].adapters["a"], torch.ones(3)) and not found[200].adapters
    write_steps(tmp_path / "b.safetensors", dict(reversed(words.items())), ABOUT)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_words_of_several_text_encoders(tmp_path: Path) -> None:
    rows = {"clip_l": torch.ones(1, 4), "clip_g": torch.zeros(1, 6)}
    write_steps(tmp_path / "a.safetensors", {7: Word("<mug>", rows)}, ABOUT)
    word = read_steps(tmp_path / "a.safetensors")[0][7]
    assert word.token == "<mug>" and {name: tuple(each.shape) for name, each in word.rows.items()} == {"clip_l": (1, 4), "clip_g": (1, 6)}


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert steps_in(path) == ([], {})
    with pytest.raises(ParamsError, match=r"a.safetensors: no readable file of a word's steps .* Train the concept again"):
        read_steps(path)
    write_steps(path, {7: Word("<mug>", {ONLY: torch.ones(1, 4)})}, ABOUT)
    path.write_bytes(path.read_bytes()[:-4])
    assert steps_in(path) == ([], {})
    with pytest.raises(ParamsError):
        read_steps(path)
