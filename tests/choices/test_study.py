from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.evaluation.test_summary import write_report
from ti_pipeline.choices.store import Answer
from ti_pipeline.choices.study import key_path, sum_up
from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT
from ti_pipeline.evaluation.summary import summarise
from ti_pipeline.files import write_json
from ti_pipeline.workspace import Workspace

SETUPS = {"a": LEARNT, "b": PICTURES, "c": PROMPT}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    workspace = Workspace.at(tmp_path, "concepts")
    write_json(key_path(workspace), {q: {"kind": k, "concept": "one", "setups": SETUPS} for q, k in (("q1", "likeness"), ("q2", "text"))})
    return workspace


def answer(question: str, person: str, order: str) -> Answer:
    return Answer(question, person, tuple(order), "now", f"{question}{person}")


def test_a_setups_value_is_the_share_of_others_that_it_beats(workspace: Workspace):
    answers = [answer("q1", str(n), "bac") for n in range(9)] + [answer("q1", "9", "abc")] + [answer("q2", "0", "cab")]
    study = sum_up(workspace, [*answers, answer("q1", "x", "ab"), answer("gone", "x", "abc")])
    assert (study["answers"], study["people"], study["left_out"]) == ({"likeness": 10, "text": 1}, 10, 2)
    learnt, pictures, prompt = (study["setups"][name]["likeness"] for name in (LEARNT, PICTURES, PROMPT))
    assert (learnt["value"], pictures["value"], prompt["value"]) == (0.55, 0.95, 0.0)
    assert pictures["low"] < 0.95 < pictures["high"] <= 1 and prompt["low"] == prompt["high"] == 0
    assert study["setups"][PROMPT]["text"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 1}


def test_the_study_stands_in_the_evaluations_scatter_and_metrics(workspace: Workspace):
    write_report(workspace, "one")
    plain = (summarise(workspace, ["one"]).parent / "scatter.svg").read_text()
    sum_up(workspace, [answer("q1", "0", "bac"), answer("q2", "0", "cab")])
    metrics = json.loads(summarise(workspace, ["one"]).with_name("details.json").read_text())
    assert metrics["study_people"] == 1 and metrics["study_image_only_likeness"] == 1.0 and metrics["study_prompt_only_text_high"] == 1.0
    drawn = (workspace.evaluation / "scatter.svg").read_text()
    assert drawn.count('id="axes_') == 2 and plain.count('id="axes_') == 1


def test_without_a_questionnaire_it_says_what_to_do(tmp_path: Path):
    with pytest.raises(ParamsError, match="no questionnaire.*ti-pipeline evaluate"):
        sum_up(Workspace.at(tmp_path, "concepts"), [])
