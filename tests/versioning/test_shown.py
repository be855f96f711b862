"""Readers see what current concepts own and what is recorded; a place of one's own takes anything."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.versioning.small import SETS, content, write
from tests.versioning.test_publish import seen
from ti_pipeline.errors import PipelineError
from ti_pipeline.params import load
from ti_pipeline.versioning.publish import publish
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.shown import for_readers
from ti_pipeline.workspace import Workspace


@pytest.fixture()
def place(repository: Path) -> Workspace:
    """The small repository with a page and a word for each set."""
    for slug in SETS:
        page = repository / "artifacts" / "galleries" / slug
        write(page / "index.html", slug.encode())
        write(page / "references" / "0.webp", content(slug))
        write(page / "page.json", json.dumps({"fingerprint": "x", "covers": [], "files": ["index.html", "references/0.webp"]}).encode())
        write(repository / "artifacts" / "embeddings" / slug / "learned_embeds.safetensors", content(f"word {slug}"))
    index(repository, *SETS)
    return Workspace.at(repository, "data/concepts")


def index(root: Path, *slugs: str) -> None:
    links = "".join(f'<a href="{slug}/index.html">{slug}</a>' for slug in slugs)
    write(root / "artifacts" / "galleries" / "index.html", links.encode())


@pytest.fixture()
def settings(place, params, bucket):
    """Written into the workspace's params.yaml, as everybody's place is."""
    path = place.root / "params.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["storage"] |= params.storage.model_dump()
    tree["publish"] |= {"bucket": bucket, "prefix": "site"}
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return lambda *overrides: load(path, overrides)


def test_what_is_withdrawn_is_not_published_whatever_lies_there(place, settings, admin, bucket) -> None:
    assert publish(place, settings(), print).state == "published"
    assert any("lamp" in name for name in seen(admin, bucket))
    shutil.rmtree(place.concepts / "lamp")
    with pytest.raises(PipelineError, match="still shows what is withdrawn: lamp. Run `ti-pipeline gallery` first"):
        publish(place, settings(), print)
    index(place.root, "bear", "fern")
    assert (place.galleries / "lamp" / "index.html").is_file() and place.embedding("lamp").is_file()
    done = publish(place, settings(), print)
    names = seen(admin, bucket)
    listed = admin.list_objects_v2(Bucket=bucket, Prefix=f"site/builds/{done.build}/")["Contents"]
    assert len(listed) == len(names) + 1 and not any("lamp" in entry["Key"] for entry in listed)
    assert any("fern" in name for name in names) and not any("lamp" in name for name in names)


def test_only_what_a_page_names_goes_with_it(place) -> None:
    write(place.galleries / "fern" / ".page-abc.json", b"half")
    write(place.galleries / "fern" / "pictures" / "old.webp", b"of an earlier page")
    write(place.galleries / "_site" / ".style-abc.css", b"half")
    write(place.galleries / "_site" / "style.css", b"p{}")
    write(place.galleries / "bear" / "page.json", b"{}")
    names = set(for_readers(place))
    assert {name for name in names if name.startswith(("galleries/fern/", "galleries/bear/", "galleries/_site/"))} == {
        "galleries/fern/index.html", "galleries/fern/page.json", "galleries/fern/references/0.webp", "galleries/_site/style.css",
    }  # fmt: skip
    (place.galleries / "fern" / "references" / "0.webp").unlink()
    with pytest.raises(PipelineError, match="galleries/fern/references/0.webp not there. Run `ti-pipeline gallery` first"):
        for_readers(place)


def test_a_run_with_other_settings_does_not_take_the_place_of_everybodys_gallery(place, settings, admin, bucket) -> None:
    assert publish(place, settings(), print).state == "published"
    before = seen(admin, bucket, "site")
    write(place.galleries / "fern" / "index.html", b"of a trial")
    done = publish(place, settings("seed=7"), print)
    assert (
        done.state == "withheld" and "settings differ" in done.reason and "seed" in str(done) and "publish.prefix=site-trial" in str(done)
    )
    assert seen(admin, bucket, "site") == before
    own = publish(place, settings("seed=7", "publish.prefix=site-trial"), print)
    assert own.state == "published" and own.url.endswith("/site-trial/index.html")
    assert seen(admin, bucket, "site") == before and seen(admin, bucket, "site-trial")["galleries/fern/index.html"] == "of a trial"


def test_what_differs_from_the_record_waits_for_it(place, settings, admin, bucket) -> None:
    record(place, settings(), print, force=True)
    assert publish(place, settings(), print).state == "published"
    write(place.galleries / "fern" / "index.html", b"of a trial")  # and params.yaml as before: the settings do not tell
    done = publish(place, settings(), print)
    assert done.state == "withheld" and "artifacts/galleries/fern/index.html. Run `ti-pipeline record` first" in done.reason
    assert publish(place, settings("versions.record=false"), print).state == "published"
    record(place, settings(), print, force=True)
    assert publish(place, settings(), print).state == "up-to-date"
