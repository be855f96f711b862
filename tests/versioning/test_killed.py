"""SIGKILL at 20 points of each, by the clock and by what changes the file system: the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.versioning.small import ROOT, configured, content, digests, write
from tests.versioning.test_publish import gallery, seen
from ti_pipeline.versioning import git

pytestmark = pytest.mark.slow

POINTS = 20


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, server) -> Iterator[Callable[..., dict]]:
    environment = os.environ | server.environment | {"DVC_SITE_CACHE_DIR": str(tmp_path_factory.mktemp("site")), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.versioning.prepared"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def order(job: str, root: Path, params: Any, **kill: float | int) -> dict:
        line = {"job": job, "root": str(root), "params": params.model_dump(mode="json", by_alias=True)}
        process.stdin.write(json.dumps(line | {"kill_after": None, "kill_at": None} | kill) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    assert json.loads(process.stdout.readline()) == "ready"
    try:
        yield order
    finally:
        process.stdin.close()
        process.wait(60)


def at_random_points(
    order: Callable[..., dict], job: str, fresh: Callable[[str], tuple[Path, Any]], state: Callable[[Path, Any], Any], points: int = POINTS
) -> None:
    """The state after an undisturbed run against the states after a killed one and the next."""
    root, params = fresh("reference")
    whole = order(job, root, params)
    expected, hits = state(root, params), 0
    chance = random.Random(job)
    for point in range(points):
        root, params = fresh(str(point))
        share = (point + chance.random()) / points
        if whole["steps"] > points and point % 2:
            tried = order(job, root, params, kill_at=1 + int(share * whole["steps"]))
        else:
            tried = order(job, root, params, kill_after=share * whole["seconds"])
            whole = whole if tried["killed"] else tried  # what it takes now, when it ended before that moment
        hits += tried["killed"]
        after = order(job, root, params)
        assert not after["killed"] and state(root, params) == expected, after["said"]
    assert hits >= points // 2  # the rest had ended by then


def test_versioning(prepared, pattern, tmp_path, admin, bucket, server) -> None:
    def fresh(name: str):
        root = Path(shutil.copytree(pattern, tmp_path / name))
        params = configured(server.endpoint, bucket, versions={"commit": True, "tag": True})
        return root, params.model_copy(update={"storage": params.storage.model_copy(update={"prefix": name})})

    def state(root: Path, params: Any):
        listed = admin.list_objects_v2(Bucket=bucket, Prefix=f"{params.storage.prefix}/").get("Contents", [])
        remote = sorted((entry["Key"].removeprefix(params.storage.prefix), entry["ETag"]) for entry in listed)
        cache = sorted(path.relative_to(root).as_posix() for path in (root / ".dvc" / "cache" / "files").rglob("*") if path.is_file())
        files = digests(root, "data", "artifacts") | {"dvc.lock": (root / "dvc.lock").read_text()}
        tree = git.git(root, "rev-parse", "HEAD^{tree}"), git.git(root, "tag", "--list").split(), git.changed(root, ".")
        return remote, cache, files, tree

    at_random_points(prepared, "versioning", fresh, state)


def test_the_inbox(prepared, tmp_path, admin, bucket, server) -> None:
    for slug, mark in (("fern", "a"), ("lamp", "b")):
        for number in range(6):
            admin.put_object(Bucket=bucket, Key=f"drop/{slug}/{number}.png", Body=content(f"{slug}{number}{mark}"))
    params = configured(server.endpoint, None, inbox={"bucket": bucket, "prefix": "drop", "quiet_seconds": 0})
    older = tmp_path / "older"
    admin_old = {f"{number}.png": content(f"old{number}") for number in range(3)}
    for name, data in admin_old.items():
        write(older / "data" / "concepts" / "fern" / name, data)
    record = {"source": f"s3://{bucket}/drop/fern", "files": {name: ["0" * 32, len(data)] for name, data in admin_old.items()}}
    write(older / "data" / "concepts" / "fern" / ".taken.json", json.dumps(record).encode())
    write(older / "data" / "concepts" / "fern" / "concept.yaml", b"kind: object\n")

    def fresh(name: str):
        return Path(shutil.copytree(older, tmp_path / name)), params

    at_random_points(prepared, "inbox", fresh, lambda root, _: digests(root, "data"))


def test_publishing(prepared, tmp_path, admin, bucket, server) -> None:
    def fresh(name: str):
        params = configured(server.endpoint, None, publish={"bucket": bucket, "prefix": name})
        root = tmp_path / name
        gallery(root, "old")
        prepared("publishing", root, params)
        gallery(root, "new")
        return root, params

    def state(root: Path, params: Any):
        return seen(admin, bucket, params.publish.prefix), keys(admin, bucket, params.publish.prefix)

    at_random_points(prepared, "publishing", fresh, state)


def test_sweeping_old_builds(prepared, tmp_path, admin, bucket, server) -> None:
    def fresh(name: str):
        for number in range(24):
            admin.put_object(Bucket=bucket, Key=f"{name}/builds/{number:016x}/galleries/index.html", Body=b"old")
        gallery(root := tmp_path / name, "new")
        return root, configured(server.endpoint, None, publish={"bucket": bucket, "prefix": name, "keep": 1})

    def state(root: Path, params: Any):
        return seen(admin, bucket, params.publish.prefix), keys(admin, bucket, params.publish.prefix)

    at_random_points(prepared, "sweeping", fresh, state, 8)


def keys(admin: Any, bucket: str, prefix: str) -> list[str]:
    listed = admin.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    return sorted(entry["Key"].removeprefix(prefix) for entry in listed)
