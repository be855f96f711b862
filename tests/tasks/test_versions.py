"""The steps around the stages in a flow: what they say without a storage, and that trouble with one stops nothing."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

from prefect.logging import disable_run_logger

from tasks.versions import inbox, merged, publish, storage_can_pass, take_in, versioning
from ti_pipeline.params import load
from ti_pipeline.versioning.storage import StorageError
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


def test_without_a_storage_nothing_is_pushed_or_published_and_it_is_said(tmp_path) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    params, place = load(tmp_path / "params.yaml"), Workspace.at(tmp_path, "concepts")
    with disable_run_logger():
        assert take_in(place, params) == {} and inbox.fn(place, params) == []
        assert "not pushed" in versioning.fn(place, params, [])["said"]
        assert publish.fn(place, params, datetime.now(UTC))["said"] == "not published: publish.bucket is not set in params.yaml"
    assert list(tmp_path.iterdir()) == [tmp_path / "params.yaml"]


def test_parts_of_the_summary_are_merged() -> None:
    whole = merged({}, {"inbox": [], "notes": ["inbox: empty"]}, {"versions": {}, "notes": ["a"], "troubles": {"versions": "no server"}})
    assert whole == {"inbox": [], "versions": {}, "notes": ["inbox: empty", "a"], "troubles": {"versions": "no server"}}


def test_only_what_may_pass_is_tried_again() -> None:
    class State:
        data: object = StorageError("no server answers", passing=True)

    assert storage_can_pass(None, None, State())
    State.data = StorageError("the key is refused")
    assert not storage_can_pass(None, None, State())
