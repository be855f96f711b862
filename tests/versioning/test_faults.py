"""What networks and servers do: a clear message or success, and a second run that makes everything whole."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.versioning.fault_proxy import faulty
from tests.versioning.small import bring, configured, digests
from ti_pipeline.params import Params
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.storage import StorageError
from ti_pipeline.workspace import Workspace

pytestmark = pytest.mark.slow

OBJECTS = 9 + 18 + 7


def step(root: Path, params: Params):
    return record(Workspace.at(root, params.concepts.folder), params, print, force=True)


def through(params: Params, endpoint: str) -> Params:
    return params.model_copy(update={"storage": params.storage.model_copy(update={"endpoint": endpoint})})


def is_whole(repository: Path, params: Params, clone) -> None:
    """A second run pushes what is left, and a clone has every byte."""
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True})})
    assert step(repository, committing).not_pushed == ""
    second = clone("second")
    assert bring(second, params).lost == {}
    assert digests(second, "data", "artifacts") == digests(repository, "data", "artifacts")


def test_a_wrong_key_is_told(repository, params, clone, monkeypatch) -> None:
    secret = os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-" + secret)
    with pytest.raises(StorageError, match="the key is refused") as told:
        step(repository, params)
    assert secret not in str(told.value) and os.environ["AWS_ACCESS_KEY_ID"] not in str(told.value)
    assert (repository / "dvc.lock").exists()  # what is on this machine is recorded in any case
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    is_whole(repository, params, clone)


def test_no_key_is_told(repository, params, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StorageError, match="no credentials. Set AWS_ACCESS_KEY_ID"):
        step(repository, params)


def test_the_key_of_config_local_is_taken(repository, params, server, clone, monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    local = repository / ".dvc" / "config.local"
    local.write_text(f"['remote \"storage\"']\n    access_key_id = {server.key}\n    secret_access_key = {server.secret}\n")
    assert step(repository, params).pushed["objects"] == OBJECTS
    assert server.secret in local.read_text() and local.stat().st_mode & 0o077 == 0


def test_no_bucket_is_told(repository, server) -> None:
    with pytest.raises(StorageError, match="there is no such bucket. Create it"):
        step(repository, configured(server.endpoint, "nobody-made-this"))


def test_no_server_is_told_soon(repository, params) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
    began = time.monotonic()
    with pytest.raises(StorageError, match="no server answers"):
        step(repository, through(params, nowhere))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("after", [15_000, 60_000])
def test_a_server_that_dies_in_the_middle_of_a_push(repository, params, clone, after) -> None:
    with faulty(params.storage.endpoint, die_after=after) as proxy, pytest.raises(StorageError, match="no server answers"):
        step(repository, through(params, proxy.endpoint))
    is_whole(repository, params, clone)


@pytest.mark.parametrize("every", [24_000, 9_000])
def test_connections_cut_every_few_kilobytes(repository, params, clone, every) -> None:
    params = params.model_copy(update={"storage": params.storage.model_copy(update={"jobs": 2})})  # so that each connection has many bytes
    with faulty(params.storage.endpoint, cut_every=every) as proxy:
        assert step(repository, through(params, proxy.endpoint)).pushed["objects"] == OBJECTS
        is_whole(repository, through(params, proxy.endpoint), clone)
        assert proxy.cuts


def test_connections_cut_within_every_object(repository, params, clone) -> None:
    with faulty(params.storage.endpoint, cut_every=1_500) as proxy, pytest.raises(StorageError, match="s3://.*objects have arrived"):
        step(repository, through(params, proxy.endpoint))
    is_whole(repository, params, clone)


def test_a_tenth_of_the_answers_is_503(repository, params, clone) -> None:
    with faulty(params.storage.endpoint, unavailable=0.1) as proxy:
        assert step(repository, through(params, proxy.endpoint)).pushed["objects"] == OBJECTS
        is_whole(repository, through(params, proxy.endpoint), clone)
        assert proxy.refused
