"""`cache.type` symlink or hardlink: what lies in the workspace is a read-only link into DVC's cache, and nothing writes through it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from tests.versioning.small import SETS, bring, configured, content, digests, write
from tests.versioning.test_record import dvc
from ti_pipeline.errors import PipelineError
from ti_pipeline.files import write_json
from ti_pipeline.versioning.inbox import bring_in
from ti_pipeline.versioning.publish import publish
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.reproduce import reproduce
from ti_pipeline.workspace import Workspace

WORD = Path("artifacts/embeddings/fern/file.bin")


@pytest.fixture(params=["symlink", "hardlink"])
def linked(request, repository: Path, params) -> Path:
    """Everything is recorded and pushed, and every output and picture is a link."""
    for slug in SETS:
        write_json(repository / "artifacts" / "galleries" / slug / "page.json", {"fingerprint": "x", "covers": [], "files": ["file.bin"]})
    write(repository / "artifacts" / "galleries" / "index.html", b"<p>three")
    dvc(repository, "config", "cache.type", request.param)
    record(Workspace.at(repository, "data/concepts"), params, print, force=True)
    dvc(repository, "checkout", "--relink")
    assert is_link(repository / WORD) and is_link(repository / "data" / "concepts" / "fern" / "0.png")
    return repository


def is_link(path: Path) -> bool:
    return path.is_symlink() or path.stat().st_nlink > 1


def whole(root: Path) -> bool:
    """Whether every object of the cache has the bytes that its name says."""
    found = [path for path in (root / ".dvc" / "cache" / "files" / "md5").rglob("*") if path.is_file()]
    assert len(found) > 20
    return all(hashlib.md5(path.read_bytes()).hexdigest() == (path.parent.name + path.name).removesuffix(".dir") for path in found)


def step(root: Path, params):
    return record(Workspace.at(root, "data/concepts"), params, print, force=True)


def test_a_stage_that_writes_anew_leaves_the_cache_alone_and_is_recorded(linked, params) -> None:
    assert step(linked, params).recorded == []
    write_json(linked / WORD, {"learnt": "anew"})
    assert whole(linked) and not is_link(linked / WORD)
    done = step(linked, params)
    assert done.recorded == ["train", "generate"] and done.pushed["objects"] == 2 and whole(linked)
    assert "up to date" in dvc(linked, "status") and json.loads((linked / WORD).read_text()) == {"learnt": "anew"}


def test_a_pull_brings_links_and_never_writes_through_one(linked, params) -> None:
    before = digests(linked, "data", "artifacts")
    (linked / WORD).unlink()
    other = linked / "artifacts" / "embeddings" / "bear" / "file.bin"
    other.unlink()
    write(other, b"something else")
    shutil.rmtree(linked / "data" / "concepts")
    assert bring(linked, params).lost == {} and digests(linked, "data", "artifacts") == before
    assert is_link(linked / WORD) and is_link(other) and whole(linked) and "up to date" in dvc(linked, "status")
    shutil.rmtree(linked / ".dvc" / "cache")  # links that lead nowhere, or are the last name of a file
    assert bring(linked, params).lost == {} and digests(linked, "data", "artifacts") == before and whole(linked)


def test_publishing_the_inbox_and_a_reproduction_read_what_the_links_lead_to(linked, params, server, bucket, admin) -> None:
    place = Workspace.at(linked, "data/concepts")
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True})})
    step(linked, committing)
    with pytest.raises(PipelineError, match="its stages did not end well: none of its 3 files can be used"):  # they are no pictures
        reproduce(place, params, "fern", print, ["validate", "train"])
    assert whole(linked) and is_link(linked / WORD)

    there = configured(
        server.endpoint, None, publish={"bucket": bucket, "prefix": "site"}, inbox={"bucket": bucket, "prefix": "drop", "quiet_seconds": 0}
    )
    assert publish(place, there, print).state == "published"
    listed = {entry["Key"].split("/", 3)[-1]: entry["Size"] for entry in admin.list_objects_v2(Bucket=bucket, Prefix="site/b")["Contents"]}
    assert {f"galleries/{slug}/file.bin": 2000 for slug in SETS}.items() <= listed.items()

    for number in range(3):
        admin.put_object(Bucket=bucket, Key=f"drop/fern/{number}.png", Body=content(f"fern/{number}"))
    files = {f"{n}.png": [hashlib.md5(content(f"fern/{n}")).hexdigest(), 2000] for n in range(3)}
    write_json(place.concepts / "fern" / ".taken.json", {"source": f"s3://{bucket}/drop/fern", "files": files})
    admin.put_object(Bucket=bucket, Key="drop/fern/1.png", Body=b"another")
    (arrival,) = bring_in(place, there, print)
    assert (arrival.state, arrival.files) == ("taken", 1) and (place.concepts / "fern" / "1.png").read_bytes() == b"another"
    assert (place.concepts / "fern" / "0.png").read_bytes() == content("fern/0") and whole(linked)
