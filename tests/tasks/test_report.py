from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from prefect.artifacts import create_markdown_artifact
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from tasks.report import code, links, row, scores, show, state
from ti_pipeline.files import write_json
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Outcome, Workspace


def test_a_concept_is_what_it_fell_out_with() -> None:
    made = [Outcome("validate", "fox", "up-to-date"), Outcome("train", "fox", "done")]
    assert state(made[:1]) == "up-to-date"
    assert state(made) == "done"
    assert state([*made, Outcome("generate", "fox", "failed", reason="the brief is too long")]) == "failed"
    assert state([Outcome("validate", "fox", "quarantined", reason="no pictures")]) == "quarantined"


def test_every_row_has_every_column() -> None:
    lost = row([Outcome("validate", "fox", "quarantined", 0.26, "no pictures")], {"reconstruction": None})
    whole = row([Outcome(stage, "fox", "done", 1.0) for stage in STAGES], {"reconstruction": 0.7})
    assert list(lost) == list(whole)
    assert lost["validate (s)"] == 0.3 and lost["train (s)"] is None and lost["reason"] == "no pictures"


def test_scores_are_the_judges_own(tmp_path: Path) -> None:
    place = Workspace.at(tmp_path, "concepts")
    assert scores(place, "fox") == {"reconstruction": None, "editability": None}
    setups = {"textual inversion": {"reconstruction": {"value": 0.71}, "editability": None}}
    write_json(place.evaluation / "concepts" / "fox.json", {"setups": setups})
    assert scores(place, "fox") == {"reconstruction": 0.71, "editability": None}


def test_links_survive_a_space_in_a_path() -> None:
    text = links({"fox": Path("/a folder/fox/index.html")})
    assert "(file:///a%20folder/fox/index.html)" in text and "`/a folder/fox/index.html`" in text


def test_nothing_in_a_path_is_markup() -> None:
    assert code("/a`b``c\x1b") == "``` /a`b``c\\x1b ```"


def test_a_table_that_prefect_cannot_be_shown_stops_nothing(tmp_path: Path) -> None:
    outcomes = [Outcome("gallery", "fox", "done", path="/a/fox/index.html").to_json()]
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), disable_run_logger():
        show(Workspace.at(tmp_path, "concepts"), outcomes)
        with pytest.raises(httpx.ConnectError):  # nothing listens there, indeed
            create_markdown_artifact("text", key="galleries")
