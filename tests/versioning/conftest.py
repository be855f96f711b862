"""A real S3-compatible server for all tests of this room, and a bucket for each."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from tests.versioning.small import configured, small_repository
from ti_pipeline.params import Params
from ti_pipeline.versioning.local_server import Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(autouse=True)
def credentials(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The server's keys by AWS's usual chain, and none of this machine's."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    nowhere = str(tmp_path_factory.getbasetemp() / "no-aws-files")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def admin(server: Server) -> Any:
    return boto3.client(
        "s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=server.key, aws_secret_access_key=server.secret
    )


@pytest.fixture()
def bucket(admin: Any) -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    admin.create_bucket(Bucket=name)
    return name


@pytest.fixture()
def params(server: Server, bucket: str) -> Params:
    """The settings of the repository, with this test's bucket."""
    return configured(server.endpoint, bucket)


@pytest.fixture(scope="session")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pattern") / "workspace"
    small_repository(folder)
    return folder


@pytest.fixture()
def repository(pattern: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Git and DVC repository with three small image sets and an output of every stage, nothing recorded yet."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return Path(shutil.copytree(pattern, tmp_path / "workspace"))


@pytest.fixture()
def clone(repository: Path, tmp_path: Path) -> Any:
    """Makes clones of the repository as Git has it."""

    def make(name: str) -> Path:
        subprocess.run(["git", "clone", "--quiet", str(repository), str(tmp_path / name)], check=True)
        return tmp_path / name

    return make


@pytest.fixture()
def heard() -> SimpleNamespace:
    lines: list[str] = []
    return SimpleNamespace(lines=lines, say=lines.append)
