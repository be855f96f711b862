"""The inbox: what people drop into a bucket, taken once and whole."""

from __future__ import annotations

import errno
import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.versioning.fault_proxy import faulty
from tests.versioning.small import configured, content, digests, write
from ti_pipeline.params import Params
from ti_pipeline.versioning import dropped, inbox
from ti_pipeline.versioning.inbox import RECORD, bring_in
from ti_pipeline.versioning.storage import StorageError, connect, explained
from ti_pipeline.workspace import Workspace


@pytest.fixture()
def settings(server, bucket) -> Params:
    return configured(server.endpoint, None, inbox={"bucket": bucket, "prefix": "drop", "quiet_seconds": 0})


@pytest.fixture()
def place(tmp_path) -> Workspace:
    return Workspace.at(tmp_path / "w", "data/concepts")


@pytest.fixture()
def drop(admin, bucket):
    def put(name: str, data: bytes = b"picture") -> None:
        admin.put_object(Bucket=bucket, Key=f"drop/{name}", Body=data)

    return put


def states(arrivals) -> dict[str, str]:
    return {arrival.set: arrival.state for arrival in arrivals}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != RECORD}


def through(params: Params, endpoint: str) -> Params:
    return params.model_copy(update={"storage": params.storage.model_copy(update={"endpoint": endpoint})})


def test_new_sets_come_once_and_changed_ones_again(settings, place, drop) -> None:
    for number in range(3):
        drop(f"fern/{number}.png", content(f"fern{number}"))
    drop("lamp/0.png", content("lamp"))
    first = bring_in(place, settings, print)
    assert states(first) == {"fern": "taken", "lamp": "taken"} and [arrival.files for arrival in first] == [3, 1]
    assert (place.concepts / "fern" / "2.png").read_bytes() == content("fern2")
    assert not (place.concepts / ".inbox").exists()
    assert states(bring_in(place, settings, print)) == {"fern": "unchanged", "lamp": "unchanged"}

    drop("fern/1.png", b"another picture")
    drop("fern/3.png", b"one more")
    (again, _) = bring_in(place, settings, print)
    assert (again.state, again.files) == ("taken", 2)
    assert (place.concepts / "fern" / "1.png").read_bytes() == b"another picture" and names(place.concepts / "fern") == {
        f"{n}.png" for n in range(4)
    }


def test_the_rules_of_validate(settings, place, drop, admin, bucket) -> None:
    for name in (
        "fern/a.png",
        "fern/.DS_Store",
        "fern/Thumbs.db",
        "fern/deeper/b.png",
        "__MACOSX/x.png",
        ".hidden/x.png",
        "how-to.txt",
        "fern/concept.yaml",
    ):
        drop(name)
    admin.put_object(Bucket=bucket, Key="drop/empty/", Body=b"")
    (fern,) = bring_in(place, settings, print)
    assert (fern.set, fern.state) == ("fern", "taken") and fern.reason == "1 file in its subfolders ignored: deeper/b.png"
    assert names(place.concepts / "fern") == {"a.png", "concept.yaml"} and names(place.concepts) == {"fern"}


def test_what_is_no_set_is_named_with_its_reason(settings, place, drop, bucket) -> None:
    for name in ("nested-set/photos/a.png", "nested-set/photos/b.png", "loose.png", "fern/a.png"):
        drop(name)
    found = {arrival.set: arrival for arrival in bring_in(place, settings, print)}
    assert found.pop("fern").state == "taken"
    assert found["nested-set"].state == "failed" and found["nested-set"].reason == (
        "no pictures in the folder itself, 2 files in its subfolders: photos/a.png. Put them into nested-set/ itself."
    )
    loose = found[f"s3://{bucket}/drop"]
    assert loose.state == "failed" and loose.reason.startswith("1 file beside the sets: loose.png. Put what belongs together into a folder")
    assert names(place.concepts) == {"fern"}


def test_a_set_over_the_limits_is_left_and_stops_nobody(settings, place, drop, monkeypatch) -> None:
    monkeypatch.setattr(inbox, "MOST_BYTES", 10_000)
    monkeypatch.setattr(dropped, "MOST_FILES", 4)
    monkeypatch.setattr(inbox, "MOST_FILES", 4)
    monkeypatch.setattr(inbox, "MOST_A_RUN", 12_000)
    drop("large/0.png", content("large", 10_001))
    for number in range(6):
        drop(f"many/{number}.png")
    for slug in ("a-first", "b-second"):
        drop(f"{slug}/0.png", content(slug, 9_000))
    drop("z-small/0.png", content("z-small", 500))
    found = {arrival.set: arrival for arrival in bring_in(place, settings, print)}
    assert found["large"].state == found["many"].state == "failed" and found["many"].files == 0
    assert "0.0 GB: a set has at most 4 files" in found["large"].reason and "more than 4 files" in found["many"].reason
    assert found["a-first"].state == found["z-small"].state == "taken"  # the small ones first
    assert found["b-second"].state == "waiting" and "the next run takes it" in found["b-second"].reason
    assert not (place.concepts / ".inbox").exists()
    assert bring_in(place, settings, print)[1].state == "taken"


def test_a_set_that_the_disk_has_no_room_for_is_left_and_a_full_disk_ends_it(settings, place, drop, monkeypatch) -> None:
    usage = shutil._ntuple_diskusage
    drop("fern/0.png", content("fern", 3_000))
    drop("lamp/0.png", content("lamp", 200))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(20_000, 18_000, 2_000))
        found = {arrival.set: arrival for arrival in bring_in(place, settings, print)}
        assert found["lamp"].state == "taken" and found["fern"].state == "failed" and "has room for" in found["fern"].reason
        patch.setattr(shutil, "disk_usage", lambda path: usage(20_000, 19_500, 500))
        with pytest.raises(OSError) as told:
            bring_in(place, settings, print)
    assert told.value.errno == errno.ENOSPC and told.value.filename == str(place.concepts)


def test_the_stage_of_a_set_that_is_gone_goes_too(settings, place, drop) -> None:
    write(place.concepts / ".inbox" / "gone" / "files" / "0.png", b"half")
    drop("fern/0.png")
    bring_in(place, settings, print)
    assert names(place.concepts) == {"fern"}


def test_no_key_leads_out_of_the_folder(settings, place, drop) -> None:
    drop("fern/a.png")
    drop("bad\\name/a.png")
    drop("long/" + "x" * 220 + ".png")
    found = {arrival.set: arrival for arrival in bring_in(place, settings, print)}
    assert found.pop("fern").state == "taken"
    assert {arrival.state for arrival in found.values()} == {"failed"} and "Rename it" in found["long"].reason
    assert names(place.concepts) == {"fern"} and names(place.root) <= {"data", "artifacts"}


def test_a_set_that_is_still_being_uploaded_waits(settings, place, drop) -> None:
    patient = settings.model_copy(update={"inbox": settings.inbox.model_copy(update={"quiet_seconds": 5})})
    drop("fern/a.png")
    (waits,) = bring_in(place, patient, print)
    assert waits.state == "waiting" and "more may be coming" in waits.reason and not (place.concepts / "fern").exists()
    time.sleep(6.1)  # the server's clock tells full seconds
    assert states(bring_in(place, patient, print)) == {"fern": "taken"}


def test_what_people_have_here_is_never_lost(settings, place, drop) -> None:
    write(place.concepts / "mine" / "a.png", b"by hand")
    drop("mine/a.png")
    drop("fern/a.png")
    drop("fern/b.png")
    found = bring_in(place, settings, print)
    assert states(found) == {"fern": "taken", "mine": "failed"} and "put there by hand" in found[1].reason
    assert (place.concepts / "mine" / "a.png").read_bytes() == b"by hand"
    write(place.concepts / "fern" / "concept.yaml", b"kind: style\n")
    drop("fern/a.png", b"new")
    bring_in(place, settings, print)
    assert (place.concepts / "fern" / "concept.yaml").read_bytes() == b"kind: style\n" and names(place.concepts / "fern") == {
        "a.png",
        "b.png",
        "concept.yaml",
    }


def test_what_was_dropped_from_the_inbox_goes_and_a_set_that_is_gone_stays(settings, place, drop, admin, bucket) -> None:
    for name in ("fern/a.png", "fern/b.png", "lamp/a.png"):
        drop(name)
    bring_in(place, settings, print)
    admin.delete_object(Bucket=bucket, Key="drop/fern/b.png")
    admin.delete_object(Bucket=bucket, Key="drop/lamp/a.png")
    assert states(bring_in(place, settings, print)) == {"fern": "taken"}
    assert names(place.concepts / "fern") == {"a.png"} and names(place.concepts / "lamp") == {"a.png"}


def test_a_broken_run_is_carried_on_and_takes_nothing_twice(settings, place, drop) -> None:
    for number in range(12):
        drop(f"fern/{number}.png", content(f"fern{number}", 5_000))
    with faulty(settings.storage.endpoint, die_after=40_000) as proxy:
        (broken,) = bring_in(place, through(settings, proxy.endpoint), print)
    assert broken.state == "failed" and "no server answers" in broken.reason and not (place.concepts / "fern").exists()
    staged = {path.name for path in (place.concepts / ".inbox" / "fern" / "files").iterdir() if not path.name.startswith(".")}
    (done,) = bring_in(place, settings, print)
    assert staged and done.state == "taken" and done.files == 12 - len(staged)
    assert names(place.concepts / "fern") == {f"{number}.png" for number in range(12)}


@pytest.mark.parametrize("faults", [{"cut_every": 9_000}, {"unavailable": 0.3}])
def test_cut_connections_and_refusals(settings, place, drop, faults: dict[str, Any]) -> None:
    for number in range(12):
        drop(f"fern/{number}.png", content(f"fern{number}", 5_000))
    with faulty(settings.storage.endpoint, **faults) as proxy:
        assert states(bring_in(place, through(settings, proxy.endpoint), print)) == {"fern": "taken"}
        assert proxy.cuts or proxy.refused
    assert len(digests(place.root, "data/concepts/fern")) == 13


def test_the_record_says_where_it_came_from(settings, place, drop, bucket) -> None:
    drop("fern/a.png")
    bring_in(place, settings, print)
    record = json.loads((place.concepts / "fern" / RECORD).read_text())
    assert record["source"] == f"s3://{bucket}/drop/fern" and list(record["files"]) == ["a.png"]


@pytest.mark.parametrize("head", [False, True])
def test_a_wrong_clock_is_told_as_that(settings, drop, monkeypatch, tmp_path, head) -> None:
    """The real server refuses what this machine signs an hour ago."""
    here = connect(settings.storage, settings.inbox.bucket, "drop", tmp_path)
    drop("fern/a.png")
    hour = timedelta(hours=1)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: datetime.now(UTC).replace(tzinfo=None) - hour)
    monkeypatch.setattr("ti_pipeline.versioning.storage.datetime", SimpleNamespace(now=lambda zone: datetime.now(zone) - hour))
    with pytest.raises(StorageError, match="the clocks of this machine and of the server differ by more than 15 minutes"):
        with explained(here):
            here.client.head_object(Bucket=here.bucket, Key="drop/fern/a.png") if head else here.client.list_objects_v2(Bucket=here.bucket)


def test_no_inbox_and_no_server(settings, place) -> None:
    assert bring_in(place, configured("", None), print) == []
    with pytest.raises(StorageError, match="no server answers"):
        bring_in(place, through(settings, "http://127.0.0.1:9"), print)
