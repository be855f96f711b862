"""The flow that compares setups, with a real server; and that a run of the chain starts no comparison."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml

from flows.compare_setups import compare_setups
from flows.train_concepts import train_concepts
from tests.flows.test_dvc import dvc
from ti_pipeline.errors import ParamsError

OVER = {
    "compare": {
        "setups": {"two words": {"vectors": 2}}, "seeds": [0], "samples": 2, "samples_per_prompt": 1, "solver_steps": 2, "batch_size": 4,
        "bootstrap": 10,
    }
}  # fmt: skip


@pytest.fixture
def asked(finished, tmp_path: Path) -> Path:
    """A workspace after a run, in whose params.yaml somebody has asked for a comparison since."""
    folder = tmp_path / "repository"
    shutil.copytree(finished[0], folder)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["compare"] |= OVER["compare"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return folder


def test_a_run_of_the_chain_compares_nothing(finished) -> None:
    folder, _ = finished
    assert json.loads((folder / "artifacts" / "comparison" / "metrics.json").read_text()) == {}
    assert not (folder / "artifacts" / "comparison" / "report.html").exists()


def test_a_run_leaves_what_is_asked_to_those_who_ask(server, asked: Path) -> None:
    summary = train_concepts(workspace=str(asked))
    assert summary["concepts"]["fox"] == "up-to-date" and not (asked / "artifacts" / "comparison" / "report.html").exists()


def test_the_flow_compares_and_records(server, asked: Path) -> None:
    ended = compare_setups(workspace=str(asked), return_state=True)
    assert ended.name == "Incomplete" and ended.result()["concepts"]["fox"] == "done", ended.message
    assert "compare" in ended.result()["versions"]["recorded"], ended.result()["versions"]
    with (asked / "artifacts" / "comparison" / "arms.csv").open(newline="") as file:
        assert [row["setup"] for row in csv.DictReader(file)] == ["one word", "two words", "image only", "prompt only"]
    assert "up to date" in dvc(asked, "status", "compare")
    assert "Running stage" not in dvc(asked, "repro", "compare")
    assert "two words" in dvc(asked, "metrics", "show")
    again = compare_setups(workspace=str(asked))
    assert again["concepts"]["fox"] == "up-to-date"


def test_values_of_another_file_are_compared_and_not_recorded(server, finished, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    shutil.copytree(finished[0], folder)
    (folder / "over.yaml").write_text(yaml.safe_dump(OVER))
    summary = compare_setups(workspace=str(folder), concepts=["fox"], overlay="over.yaml")
    assert summary["concepts"] == {"fox": "done"} and (folder / "artifacts" / "comparison" / "report.html").is_file()
    assert "differ from" in summary["versions"]["reason"]


def test_a_bad_arm_is_refused_with_its_name(server, finished) -> None:
    with pytest.raises(ParamsError, match="compare.setups.two: vectros: there is no such key"):
        compare_setups(workspace=str(finished[0]), overrides=["compare.setups={two: {vectros: 2}}"])
