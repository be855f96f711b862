"""The flow between buckets: from pictures that somebody drops to a published gallery, and no secret on the way, whatever fails."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from dvc.repo import Repo
from prefect.client.orchestration import get_client
from prefect.logging.handlers import APILogHandler

from flows.train_concepts import train_concepts
from tests.flows.conftest import SMALL
from tests.flows.processes import ROOT, artifact
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.versioning import git
from ti_pipeline.versioning.local_server import Server, serving
from ti_pipeline.versioning.registry import versions
from ti_pipeline.words.export import export_of
from ti_pipeline.words.tools import TOOLS
from ti_pipeline.workspace import Workspace

IMAGE_SET = ROOT / "examples" / "concepts" / "fox"
BUCKETS = ("drop", "objects", "readers")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def admin(s3: Server) -> Any:
    keys = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret}
    client = boto3.client("s3", endpoint_url=s3.endpoint, region_name="us-east-1", **keys)
    for name in BUCKETS:
        client.create_bucket(Bucket=name)
    return client


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, s3: Server) -> Path:
    """A clone with no image set in it and every bucket in its settings."""
    root = tmp_path_factory.mktemp("storage") / "clone"
    (root / ".dvc").mkdir(parents=True)
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, root / name)
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for stage in pipeline["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith("ti_pipeline")]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": pipeline["stages"]}, sort_keys=False))
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    params["concepts"]["folder"] = "data/concepts"
    params["storage"] |= {"endpoint": s3.endpoint, "region": "us-east-1", "bucket": "objects"}
    params["versions"] |= {"commit": True, "tag": True, "register": True}
    params["inbox"] |= {"bucket": "drop", "quiet_seconds": 0}
    params["publish"] |= {"bucket": "readers"}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    git.git(root, "init", "--quiet", "--initial-branch=main")
    git.commit(root, "Start", ["params.yaml", "dvc.yaml", ".dvc", ".gitignore", ".dvcignore"])
    return root


@pytest.fixture(scope="module")
def surroundings(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """None of this machine's AWS settings, and the server's keys in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        nowhere = tmp_path_factory.mktemp("aws")
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, str(nowhere / name.lower()))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("DVC_SITE_CACHE_DIR", str(nowhere / "site"))
        yield patch


@pytest.fixture(scope="module")
def run(server: dict[str, str], s3: Server, admin: Any, clone: Path, surroundings: pytest.MonkeyPatch) -> SimpleNamespace:
    """One run of the whole flow after somebody has dropped a set, and what the server has of it."""
    for path in IMAGE_SET.iterdir():
        admin.upload_file(str(path), "drop", f"inbox/fox/{path.name}")
    with surroundings.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        state = train_concepts(workspace=str(clone), params=str(clone / "params.yaml"), return_state=True)
        patch.chdir(clone)  # DVC names stages from there
        dvc = Repo().status(), Repo().status(cloud=True), Repo().reproduce()
    return SimpleNamespace(state=state, link=artifact(server, "published", state), dvc=dvc)


def test_what_is_dropped_ends_as_a_learnt_pushed_and_published_concept(run, clone, s3, admin) -> None:
    assert run.state.name == "Completed" and run.state.message == "1 done", run.state.message
    summary = run.state.result()
    assert json.loads(json.dumps(summary)) == summary and summary["troubles"] == {}
    assert [(arrival["set"], arrival["state"]) for arrival in summary["inbox"]] == [("fox", "taken")]
    assert summary["versions"]["tag"] == "run/1" and summary["versions"]["registered"] == ["fox@v0.0.1"]
    assert summary["versions"]["left_out"] == {} and summary["versions"]["not_pushed"] == ""
    pushed = admin.list_objects_v2(Bucket="objects", Prefix="dvc/files/md5/")["Contents"]
    assert summary["versions"]["pushed"]["objects"] == len(pushed) > 20
    assert run.dvc == ({}, {}, [])  # nothing to commit, to push or to do again
    assert [row["stage"] for row in versions(clone)] == ["candidate"] and git.changed(clone, "data", "dvc.lock", "params.yaml") == []

    build, url = summary["published"]["build"], summary["published"]["url"]
    assert run.link == f"[Galleries and words]({url}), build `{build}`" and url == f"{s3.endpoint}/readers/galleries/index.html"
    pointer = admin.get_object(Bucket="readers", Key="galleries/index.html")["Body"].read().decode()
    assert f"builds/{build}/galleries/index.html" in pointer
    word = admin.get_object(Bucket="readers", Key=f"galleries/builds/{build}/galleries/fox/word/ti-fox.safetensors")["Body"].read()
    place = Workspace.at(clone, "data/concepts")
    assert word == export_of(place, read_manifest(place, "fox"), "ti-fox").weights(TOOLS["diffusers"])
    page = admin.head_object(Bucket="readers", Key=f"galleries/builds/{build}/galleries/fox/index.html")
    assert page["ContentType"] == "text/html; charset=utf-8"


def place_keys(patch: pytest.MonkeyPatch, source: str, key: str, secret: str, clone: Path, home: Path) -> set[Path]:
    """The keys where `source` says and nowhere else; returns the files that hold them by a person's own will."""
    local = clone / ".dvc" / "config.local"
    local.unlink(missing_ok=True)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        patch.delenv(name, raising=False)
    if source == "environment":
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        return set()
    if source == "profile":
        (home / "credentials").write_text(f"[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
        patch.setenv("AWS_PROFILE", "work")
        return set()
    local.write_text(f"['remote \"storage\"']\n    access_key_id = {key}\n    secret_access_key = {secret}\n")
    return {local}


@pytest.mark.parametrize("source", ["environment", "profile", "config.local"])
def test_no_secret_is_in_anything_that_a_run_leaves(source, run, server, s3, admin, clone, tmp_path, monkeypatch, caplog, capfd) -> None:
    """A run that pushes and publishes and one with a wrong secret; then all that both have said or written is searched."""
    caplog.set_level(logging.INFO)
    again = {"workspace": str(clone), "params": str(clone / "params.yaml"), "stages": ["validate"]}
    wrong = s3.secret[::-1]
    secrets = {s3.secret, wrong, s3.key}
    said: list[str] = []
    for secret in (s3.secret, wrong):
        holders = place_keys(monkeypatch, source, s3.key, secret, clone, tmp_path)
        # something to take, to record, to push and to publish
        admin.put_object(Bucket="drop", Key="inbox/fox/notes.txt", Body=f"{source} {len(said)}".encode())
        (clone / "artifacts" / "galleries" / "note.html").write_text(f"{source} {len(said)}")
        state = train_concepts(**again, return_state=True)
        assert state.is_failed() == (secret == wrong)
        summary = state.result(raise_on_failure=False)
        assert bool(summary["troubles"]) == (secret == wrong), summary["troubles"]
        if secret == wrong:
            assert all("the key is refused" in why for why in summary["troubles"].values())
            assert summary["troubles"].keys() == {"inbox", "versions", "published"}
        else:
            assert summary["published"]["objects"] > 0 and summary["versions"]["not_pushed"] == ""
        said += [state.message, json.dumps(summary), repr(state)]
        assert in_files(clone, secrets, holders) == [] and not in_git(clone, secrets)
    captured = capfd.readouterr()
    APILogHandler().flush()
    logs, artifacts = from_prefect()
    assert any("the key is refused" in line for line in logs) and any("pushed: " in line for line in logs) and len(artifacts) > 3
    text = "\n".join([*said, *logs, *artifacts, caplog.text, captured.out, captured.err])
    assert not any(secret in text for secret in secrets)
    assert in_files(Path(server["PREFECT_HOME"]), secrets) == [] and in_files(Path(os.environ["DVC_SITE_CACHE_DIR"]), secrets) == []


def in_files(folder: Path, secrets: set[str], holders: Iterable[Path] = ()) -> list[Path]:
    """Files below the folder, but the holders, with a secret in their bytes, in Parquet's rows or metadata, or behind zlib."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path not in holders and holds(path, secrets))


def holds(path: Path, secrets: set[str]) -> bool:
    data = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path, partitioning=None)
        data += f"{table.to_pylist()} {table.schema.metadata} {pq.read_metadata(path).metadata}".encode()
    with suppress(zlib.error):
        data += zlib.decompress(data)
    return any(secret.encode() in data for secret in secrets)


def in_git(root: Path, secrets: set[str]) -> bool:
    """Whether any object that Git has, packed or not, has a secret."""
    every = ["git", "cat-file", "--batch-all-objects", "--batch"]
    data = subprocess.run(every, cwd=root, capture_output=True, check=True).stdout
    return any(secret.encode() in data for secret in secrets)


def from_prefect() -> tuple[list[str], list[str]]:
    """Every line of log and every artifact that Prefect's server keeps."""
    with get_client(sync_client=True) as client:
        logs, artifacts = [], client.read_artifacts(limit=200)
        while page := client.read_logs(offset=len(logs), limit=200):
            logs += page
    return [f"{log.name} {log.message}" for log in logs], [artifact.model_dump_json() for artifact in artifacts]


def test_the_search_finds_a_secret_where_it_is_hidden(tmp_path) -> None:
    """In compressed Parquet, in a database, and in a Git object."""
    pq.write_table(pa.table({"note": ["the key is hush-hush-hush"]}), tmp_path / "a.parquet", compression="zstd")
    pq.write_table(pa.table({"note": ["x"]}).replace_schema_metadata({"about": "hush-hush-hush"}), tmp_path / "b.parquet")
    with sqlite3.connect(tmp_path / "c.db") as base:
        base.execute("create table t (x)")
        base.execute("insert into t values ('hush-hush-hush')")
    (tmp_path / "d").write_bytes(zlib.compress(b"blob 14\0hush-hush-hush"))
    assert [path.name for path in in_files(tmp_path, {"hush-hush-hush"})] == ["a.parquet", "b.parquet", "c.db", "d"]
    root = tmp_path / "repository"
    root.mkdir()
    git.git(root, "init", "--quiet")
    (root / "x").write_text("hush-hush-hush")
    git.commit(root, "x", ["x"])
    subprocess.run(["git", "gc", "--quiet"], cwd=root, check=True)
    assert in_git(root, {"hush-hush-hush"})
