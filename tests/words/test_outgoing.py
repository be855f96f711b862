"""Many words to tools at once, as the command sends them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.candidates.small_workspace import ROOT, add_concept, add_word
from ti_pipeline import cli
from ti_pipeline.errors import ConceptError
from ti_pipeline.words.outgoing import Destination, Sent, send
from ti_pipeline.words.tools import TOOLS


def test_one_that_cannot_go_is_said_and_the_others_go(tmp_path: Path) -> None:
    workspace, _ = add_concept(tmp_path, "duck-toy", "token: <duck>\n")
    add_word(workspace, "duck-toy", "<duck>", concept="duck-toy")
    lost, first, second = send(workspace, ["goose", "duck-toy"], Destination(tmp_path / "out"))
    assert isinstance(lost, ConceptError) and str(lost).startswith("goose: ")
    assert isinstance(first, Sent) and isinstance(second, Sent)
    assert (first.path, second.path) == (tmp_path / "out/diffusers/ti-duck-toy.safetensors", tmp_path / "out/sd-concepts/ti-duck-toy")
    assert str(first) == f"{first.path}: diffusers, write <duck>" and all(path.is_file() for path in first.files)
    (flat,) = send(workspace, ["duck-toy"], Destination(tmp_path / "flat", False, TOOLS["diffusers"], "my-{concept}"))
    assert isinstance(flat, Sent) and flat.path == tmp_path / "flat" / "my-duck-toy.safetensors" and flat.path.is_file()
    (refused,) = send(workspace, ["duck-toy"], Destination(tmp_path / "flat", False, TOOLS["a1111"]))
    assert isinstance(refused, ConceptError) and "A1111 has no model for a word" in str(refused)


@pytest.mark.parametrize(
    ("words", "place"),
    [((), "exports/diffusers"), (("--out", "there"), "there/diffusers"), (("--for", "diffusers", "--out", "there"), "there")],
)
def test_the_command_puts_them_where_it_says(words: tuple[str, ...], place: str, tmp_path: Path, monkeypatch, capsys) -> None:
    workspace, _ = add_concept(tmp_path, "duck-toy", "token: <duck>\n")
    add_word(workspace, "duck-toy", "<duck>", concept="duck-toy")
    monkeypatch.chdir(tmp_path)
    command = ["ti-pipeline", "export", *words, "--json", "--params", str(ROOT / "params.yaml"), "--set", "concepts.folder=concepts"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    files = [Path(name) for name in json.loads(capsys.readouterr().out)["duck-toy"]]
    assert (tmp_path / place / "ti-duck-toy.safetensors") in [tmp_path / file for file in files] and all(file.is_file() for file in files)
