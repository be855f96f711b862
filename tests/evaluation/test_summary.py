from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, SETUPS, concept_path
from ti_pipeline.evaluation.summary import summarise
from ti_pipeline.files import write_json
from ti_pipeline.workspace import Workspace

POINTS = {LEARNT: (0.7, 0.27), PICTURES: (0.85, 0.23), PROMPT: (0.55, 0.3)}
FILES = ("metrics.json", "details.json", "scatter.csv", "per_brief.csv", "scatter.svg", "per_brief.svg")


def write_report(workspace: Workspace, slug: str, shift: float = 0.0, judge: str = "j", prompts: tuple[str, ...] = ("a {token}",)) -> None:
    def around(value: float) -> dict[str, float | int]:
        return {"value": round(value + shift, 6), "low": round(value + shift - 0.01, 6), "high": round(value + shift + 0.01, 6), "n": 8}

    setups = {
        n: {"reconstruction": around(x), "editability": around(y), "editability_per_sample": around(y - 0.02)}
        for n, (x, y) in POINTS.items()
    }
    write_json(concept_path(workspace, slug), {
        "concept": slug, "kind": "object", "generator": {"name": "g", "digest": "g"}, "setups": setups, "gain_percent": around(50.0),
        "measured_by": {"reconstruction": {"judge": judge, "digest": judge}, "editability": {"clip": "c", "digest": "c"}},
        "briefs": [{"prompt": prompt, "text": prompt.replace("{token}", ""), "setups": setups} for prompt in prompts],
    })  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.at(tmp_path, "concepts")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_metrics_are_flat_means_with_intervals(workspace: Workspace):
    write_report(workspace, "one")
    write_report(workspace, "two", 0.1)
    path = summarise(workspace, ["two", "one"])
    metrics = json.loads(path.with_name("details.json").read_text())
    compared = json.loads(path.read_text())
    assert list(compared) == ["concepts", "editability", "gain_percent", "reconstruction"]  # what fits beside params on a terminal
    assert compared.items() <= metrics.items()
    assert metrics["reconstruction"] == pytest.approx(0.75) and metrics["image_only_reconstruction"] == pytest.approx(0.9)
    assert metrics["prompt_only_editability"] == pytest.approx(0.35) and metrics["editability_per_sample"] == pytest.approx(0.3)
    assert (
        metrics["gain_percent"] == pytest.approx(50.05)
        and metrics["gain_percent_low"] <= metrics["gain_percent"] <= metrics["gain_percent_high"]
    )
    assert all(isinstance(value, int | float | str) for value in metrics.values())
    assert metrics["reconstruction_by"] == "judge j" and metrics["editability_by"] == "CLIP c"


def test_tables_have_a_row_for_every_concept_setup_and_brief(workspace: Workspace):
    hostile = 'a {token}, "quoted"\nand $\\frac{broken$ on <script>'
    write_report(workspace, "one", prompts=("a {token}", hostile))
    write_report(workspace, "two")
    summarise(workspace, ["one", "two"])
    scatter = rows(workspace.evaluation / "scatter.csv")
    assert [(row["concept"], row["setup"]) for row in scatter] == [(slug, name) for slug in ("one", "two") for name in SETUPS]
    assert float(scatter[0]["reconstruction_low"]) == pytest.approx(0.69)
    briefs = rows(workspace.evaluation / "per_brief.csv")
    assert len(briefs) == 3 * len(SETUPS) and briefs[3]["prompt"] == hostile


def test_the_same_reports_give_the_same_bytes(workspace: Workspace, tmp_path: Path):
    for slug in ("one", "two"):
        write_report(workspace, slug)
    summarise(workspace, ["one", "two"])
    first = {name: (workspace.evaluation / name).read_bytes() for name in FILES}
    summarise(workspace, ["two", "one", "one"])
    assert first == {name: (workspace.evaluation / name).read_bytes() for name in FILES}
    for name in ("scatter.svg", "per_brief.svg"):
        assert first[name].startswith(b"<?xml") and b"<dc:date>" not in first[name]


def test_numbers_of_another_judge_do_not_mix(workspace: Workspace):
    write_report(workspace, "one")
    write_report(workspace, "two")
    write_report(workspace, "three", 0.2, judge="another")
    metrics = json.loads(summarise(workspace, ["one", "two", "three"]).with_name("details.json").read_text())
    assert (metrics["concepts"], metrics["left_out"]) == (2, 1)
    assert metrics["reconstruction"] == pytest.approx(0.7)


def test_nothing_evaluated_is_said_and_a_broken_report_passed_over(workspace: Workspace):
    concept_path(workspace, "broken").parent.mkdir(parents=True)
    concept_path(workspace, "broken").write_text("{")
    path = summarise(workspace, ["broken", "missing"])
    assert json.loads(path.read_text()) == {"concepts": 0}
    assert json.loads(path.with_name("details.json").read_text()) == {"concepts": 0, "left_out": 0}
    assert all((workspace.evaluation / name).is_file() for name in FILES)
    assert rows(workspace.evaluation / "scatter.csv") == []
