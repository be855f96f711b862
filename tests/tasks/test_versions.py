"""The steps around the stages in a flow: what they say without a storage, and that trouble with one stops nothing."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from prefect.logging import disable_run_logger

from tasks import versions as steps
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


def kept(monkeypatch, recorded: dict, published: dict, *words: dict) -> dict:
    """What the run's last steps add to the summary when they end so; `words` are what became of those for the hub."""
    monkeypatch.setattr(steps, "versioning", lambda *_: recorded | {"said": "x"})
    monkeypatch.setattr(steps, "publish", lambda *_: published | {"said": "y"})
    monkeypatch.setattr(steps, "hub", lambda *_: [*words])
    repositories = {word["concept"]: f"team/{word['concept']}" for word in words}
    params = load(ROOT / "params.yaml", [f"publish.hub={json.dumps(repositories)}"])
    return steps.keep(None, params, {"reasons": {}, "gallery": "index.html"}, datetime.now(UTC))


def test_a_gallery_that_is_withheld_is_a_trouble_unless_the_run_was_a_trial(monkeypatch) -> None:
    withheld = {"state": "withheld", "reason": "it differs from DVC's record"}
    assert kept(monkeypatch, {"reason": ""}, withheld)["troubles"] == {"published": "it differs from DVC's record"}
    trial = kept(monkeypatch, {"reason": "this run had other settings"}, withheld)
    assert trial["troubles"] == {} and trial["published"]["state"] == "withheld" and trial["notes"] == ["x", "y"]
    assert kept(monkeypatch, {"left_out": {"train": "bear not up to date"}}, withheld)["troubles"] == {}
    assert kept(monkeypatch, {"reason": ""}, {"state": "published", "reason": ""})["troubles"] == {}


def test_a_word_that_does_not_get_to_the_hub_is_a_trouble_of_its_own(monkeypatch) -> None:
    words = [{"concept": name, "state": state, "reason": f"why {name}"} for name, state in (("a", "failed"), ("b", "withheld"))]
    published = {"state": "published", "reason": ""}
    whole = kept(monkeypatch, {"reason": ""}, published, *words, {"concept": "c", "state": "uploaded", "reason": ""})
    assert whole["troubles"] == {"hub: a": "why a", "hub: b": "why b"} and "hub: 1 failed, 1 withheld, 1 uploaded" in whole["notes"]
    assert kept(monkeypatch, {"reason": "other settings"}, published, *words)["troubles"] == {"hub: a": "why a"}


def test_a_full_disk_is_told_with_its_place() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device", "/data/cache")

    with disable_run_logger():
        assert steps._guarded("versions", full)["troubles"] == {"versions": "/data/cache: No space left on device"}


def test_parts_of_the_summary_are_merged() -> None:
    whole = merged({}, {"inbox": [], "notes": ["inbox: empty"]}, {"versions": {}, "notes": ["a"], "troubles": {"versions": "no server"}})
    assert whole == {"inbox": [], "versions": {}, "notes": ["inbox: empty", "a"], "troubles": {"versions": "no server"}}


def test_only_what_may_pass_is_tried_again() -> None:
    class State:
        data: object = StorageError("no server answers", passing=True)

    assert storage_can_pass(None, None, State())
    State.data = StorageError("the key is refused")
    assert not storage_can_pass(None, None, State())
