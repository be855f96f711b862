"""Publishing: readers see one build or the other, whoever publishes and whatever dies."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.versioning.fault_proxy import faulty
from tests.versioning.small import configured, write
from ti_pipeline.errors import PipelineError
from ti_pipeline.params import Params
from ti_pipeline.versioning import publish as publishing
from ti_pipeline.versioning.publish import content_type, publish
from ti_pipeline.versioning.storage import StorageError
from ti_pipeline.workspace import Workspace


@pytest.fixture()
def settings(server, bucket) -> Params:
    return configured(server.endpoint, None, publish={"bucket": bucket, "prefix": "site"})


def gallery(root: Path, mark: str) -> Workspace:
    """Pages that all carry the build's mark, and a word that does."""
    shutil.rmtree(root / "artifacts", ignore_errors=True)
    for number in range(4):
        page(root, f"page-{number}", f"{mark} {number}".encode())
    write(root / "artifacts" / "galleries" / "index.html", mark.encode())
    write(root / "artifacts" / "galleries" / "same.png", b"the same in every build")
    page(root, "page-0", f"{mark} 0".encode(), {"word/ti-page-0.safetensors": mark.encode()})
    write(root / "artifacts" / "embeddings" / "page-0" / "learned_embeds.safetensors", b"stays at home")
    return Workspace.at(root, "data/concepts")


def page(root: Path, slug: str, text: bytes, more: dict[str, bytes] | None = None) -> None:
    """A concept and its page, as the stage leaves it; `more` are further files of it."""
    folder, files = root / "artifacts" / "galleries" / slug, {"index.html": text, **(more or {})}
    for name, content in files.items():
        write(folder / name, content)
    write(folder / "page.json", json.dumps({"fingerprint": "x", "covers": [], "files": [*files]}).encode())
    (root / "data" / "concepts" / slug).mkdir(parents=True, exist_ok=True)


def seen(admin: Any, bucket: str, prefix: str = "site") -> dict[str, str]:
    """All that a reader finds who follows the pointer once."""
    page = admin.get_object(Bucket=bucket, Key=f"{prefix}/index.html")["Body"].read().decode()
    build = re.search(r"url=(builds/[0-9a-f]+)/galleries/index.html", page)[1]
    listing = json.loads(admin.get_object(Bucket=bucket, Key=f"{prefix}/{build}/manifest.json")["Body"].read())
    return {
        name: admin.get_object(Bucket=bucket, Key=f"{prefix}/{build}/{name}")["Body"].read().decode(errors="replace") for name in listing
    }


def mark(files: dict[str, str]) -> str:
    """The one mark of all files but the common one."""
    (only,) = {text.split()[0] for name, text in files.items() if not name.endswith(("same.png", "page.json"))}
    assert len(files) == 11
    return only


@contextmanager
def reading(admin: Any, bucket: str) -> Iterator[set[str]]:
    """Somebody who follows the pointer again and again; yields the marks seen, and fails where two were mixed or a file was not there."""
    stop, marks, failed = threading.Event(), set(), []

    def read() -> None:
        try:
            while not stop.is_set():
                marks.add(mark(seen(admin, bucket)))
        except Exception as error:
            failed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield marks
    finally:
        stop.set()
        reader.join()
    assert not failed and marks, failed


def builds(admin: Any, bucket: str) -> set[str]:
    listed = admin.list_objects_v2(Bucket=bucket, Prefix="site/builds/")["Contents"]
    return {entry["Key"].split("/")[2] for entry in listed}


def test_types_and_cache_headers(settings, tmp_path, admin, bucket) -> None:
    done = publish(gallery(tmp_path, "one"), settings, print)
    assert done.state == "published" and done.objects == 11 and done.url == f"{settings.storage.endpoint}/{bucket}/site/index.html"
    head = {
        name: admin.head_object(Bucket=bucket, Key=f"site/{name}") for name in ("index.html", f"builds/{done.build}/galleries/same.png")
    }
    assert head["index.html"]["ContentType"] == "text/html; charset=utf-8" and head["index.html"]["CacheControl"] == "no-cache"
    picture = head[f"builds/{done.build}/galleries/same.png"]
    assert picture["ContentType"] == "image/png" and "immutable" in picture["CacheControl"]
    word = admin.head_object(Bucket=bucket, Key=f"site/builds/{done.build}/galleries/page-0/word/ti-page-0.safetensors")
    assert word["ContentDisposition"] == "attachment" and word["ContentType"] == "application/octet-stream"
    assert mark(seen(admin, bucket)) == "one"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.css", "text/css; charset=utf-8"), ("a.webp", "image/webp"), ("a.JPG", "image/jpeg"), ("LICENSE", "application/octet-stream")],
)
def test_content_types(name, expected) -> None:
    assert content_type(name) == expected


def test_the_same_again_uploads_nothing_and_a_change_only_what_changed(settings, tmp_path, admin, bucket) -> None:
    first = publish(gallery(tmp_path, "one"), settings, print)
    again = publish(gallery(tmp_path, "one"), settings, print)
    assert (again.state, again.build, again.objects) == ("up-to-date", first.build, 0)
    write(tmp_path / "artifacts" / "galleries" / "page-1" / "index.html", b"one changed")
    changed = publish(Workspace.at(tmp_path, "data/concepts"), settings, print)
    assert changed.state == "published" and changed.bytes == len(b"one changed")
    assert seen(admin, bucket)["galleries/page-1/index.html"] == "one changed"
    assert admin.head_object(Bucket=bucket, Key=f"site/builds/{changed.build}/galleries/same.png")["ContentType"] == "image/png"


def test_two_runs_never_mix_and_readers_never_see_half(settings, tmp_path, admin, bucket) -> None:
    places = [gallery(tmp_path / str(number), f"run{number}") for number in range(4)]
    publish(gallery(tmp_path / "first", "first"), settings, print)
    with reading(admin, bucket) as marks, ThreadPoolExecutor(4) as pool:
        states = [done.state for done in pool.map(lambda place: publish(place, settings, print), places)]
    assert set(states) <= {"published", "superseded"} and "published" in states
    runs = {"run0", "run1", "run2", "run3"}
    assert marks <= {"first", *runs} and mark(seen(admin, bucket)) in runs


def test_an_older_run_does_not_take_the_place_of_a_newer_one(settings, tmp_path, admin, bucket) -> None:
    now = datetime.now(UTC)
    publish(gallery(tmp_path / "new", "new"), settings, print, began=now)
    late = publish(gallery(tmp_path / "old", "old"), settings, print, began=now - timedelta(hours=1))
    assert late.state == "superseded" and "newer build" in str(late) and mark(seen(admin, bucket)) == "new"


def test_a_server_that_dies_half_way_leaves_the_old_gallery(settings, tmp_path, admin, bucket) -> None:
    publish(gallery(tmp_path, "old"), settings, print)
    place = gallery(tmp_path, "new")
    with faulty(settings.storage.endpoint, die_after=12_000) as proxy:
        broken = settings.model_copy(update={"storage": settings.storage.model_copy(update={"endpoint": proxy.endpoint})})
        with pytest.raises(StorageError):
            publish(place, broken, print)
    assert mark(seen(admin, bucket)) == "old"
    assert publish(place, settings, print).state == "published" and mark(seen(admin, bucket)) == "new"


@pytest.mark.parametrize("faults", [{"unavailable": 0.1}, {"cut_every": 6_000}])
def test_faults_while_somebody_reads(settings, tmp_path, admin, bucket, faults: dict[str, Any]) -> None:
    publish(gallery(tmp_path, "old"), settings, print)
    with faulty(settings.storage.endpoint, **faults) as proxy, reading(admin, bucket) as marks:
        section = settings.storage.model_copy(update={"endpoint": proxy.endpoint, "jobs": 2})
        shaken = settings.model_copy(update={"storage": section})
        for name in ("new", "newer", "newest"):
            assert publish(gallery(tmp_path, name), shaken, print).state == "published"
        assert proxy.cuts or proxy.refused
    assert marks <= {"old", "new", "newer", "newest"} and mark(seen(admin, bucket)) == "newest"


def test_old_builds_go_and_young_ones_stay(settings, tmp_path, admin, bucket, monkeypatch) -> None:
    two = settings.model_copy(update={"publish": settings.publish.model_copy(update={"keep": 2})})
    made = [publish(gallery(tmp_path, name), two, print).build for name in ("a", "b", "c")]
    assert builds(admin, bucket) == set(made)  # somebody may be uploading one of these
    monkeypatch.setattr(publishing, "UNTOUCHED", timedelta(0))
    with reading(admin, bucket) as marks:
        made.append(publish(gallery(tmp_path, "d"), two, print).build)
    assert builds(admin, bucket) == set(made[-2:]) and marks <= {"c", "d"} and mark(seen(admin, bucket)) == "d"


def test_what_a_killed_sweep_has_left_goes_at_the_next_run(settings, tmp_path, admin, bucket, monkeypatch) -> None:
    last = publish(gallery(tmp_path, "one"), settings, print).build
    admin.put_object(Bucket=bucket, Key="site/builds/0123456789abcdef/galleries/page.html", Body=b"left")
    monkeypatch.setattr(publishing, "UNTOUCHED", timedelta(0))
    assert publish(Workspace.at(tmp_path, "data/concepts"), settings, print).state == "up-to-date"
    assert builds(admin, bucket) == {last} and mark(seen(admin, bucket)) == "one"


def test_a_sweep_spares_a_build_that_another_run_brings_back_meanwhile(settings, tmp_path, admin, bucket, monkeypatch) -> None:
    gone, back = "0123456789abcdef", "fedcba9876543210"
    for build in (gone, back):
        admin.put_object(Bucket=bucket, Key=f"site/builds/{build}/galleries/page.html", Body=b"old")
    looks = iter([{gone: ["a"], back: ["b"]}])
    later = {gone: [f"site/builds/{gone}/galleries/page.html"]}  # the second look no longer finds `back` untouched
    monkeypatch.setattr(publishing, "_untouched", lambda here, below: next(looks, later))
    last = publish(gallery(tmp_path, "one"), settings, print).build
    assert builds(admin, bucket) == {last, back}


def test_a_foreign_page_is_not_overwritten(settings, tmp_path, admin, bucket) -> None:
    admin.put_object(Bucket=bucket, Key="site/index.html", Body=b"<h1>Our company</h1>")
    with pytest.raises(PipelineError, match="was not written by ti-pipeline"):
        publish(gallery(tmp_path, "one"), settings, print)


def test_without_a_bucket_or_a_gallery_it_says_so(settings, tmp_path) -> None:
    assert str(publish(gallery(tmp_path, "x"), configured("", None), print)) == "not published: publish.bucket is not set in params.yaml"
    with pytest.raises(PipelineError, match="no gallery to publish"):
        publish(Workspace.at(tmp_path / "empty", "x"), settings, print)


def test_what_is_withdrawn_is_gone_from_earlier_builds_too(settings, tmp_path, admin, bucket) -> None:
    workspace = gallery(tmp_path, "one")
    first = publish(workspace, settings, print)
    shutil.rmtree(tmp_path / "data" / "concepts" / "page-0")
    gallery_without = [tmp_path / "artifacts" / folder / "page-0" for folder in ("galleries", "embeddings")]
    for path in gallery_without:
        shutil.rmtree(path)
    second = publish(workspace, settings, print)
    write(tmp_path / "artifacts" / "galleries" / "index.html", b"three")
    third = publish(workspace, settings, print)
    assert {first.state, second.state, third.state} == {"published"}
    assert builds(admin, bucket) == {second.build, third.build}  # of which none has ever shown it
    keys = [entry["Key"] for entry in admin.list_objects_v2(Bucket=bucket, Prefix="site/")["Contents"]]
    assert keys and not [key for key in keys if "page-0" in key]
