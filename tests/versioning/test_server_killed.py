"""The server's own process is killed in the middle of the work, started again on the same data, and a second run mends it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import boto3
import pytest

from tests.versioning.small import SETS, bring, configured, content, digests, write
from tests.versioning.test_publish import gallery, mark, seen
from ti_pipeline.params import Params
from ti_pipeline.versioning import inbox, objects
from ti_pipeline.versioning import publish as publishing
from ti_pipeline.versioning.inbox import bring_in
from ti_pipeline.versioning.local_server import Server, serving
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.storage import StorageError
from ti_pipeline.workspace import Workspace

pytestmark = pytest.mark.slow


class Mortal:
    """A server on one port and one data folder for as many lives as it takes."""

    def __init__(self, folder: Path, lives: ExitStack):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.folder, self.lives = folder, lives
        self.start()

    def start(self) -> None:
        self.running: Server = self.lives.enter_context(serving(self.folder, self.port))

    def die(self) -> None:
        os.kill(self.running.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    with ExitStack() as lives:
        yield Mortal(tmp_path_factory.mktemp("mortal"), lives)


@pytest.fixture()
def admin(mortal: Mortal):
    keys = {"aws_access_key_id": mortal.running.key, "aws_secret_access_key": mortal.running.secret}
    return boto3.client("s3", endpoint_url=mortal.running.endpoint, region_name="us-east-1", **keys)


@pytest.fixture(autouse=True)
def its_keys(credentials, mortal: Mortal, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in mortal.running.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture()
def params(mortal: Mortal, bucket: str) -> Params:
    return configured(mortal.running.endpoint, bucket, versions={"commit": True}, inbox={"bucket": bucket, "quiet_seconds": 0})


def killed_at(monkeypatch: pytest.MonkeyPatch, module, name: str, call: int, mortal: Mortal) -> None:
    """The server dies as the `call`th call of the function begins, while others are on their way."""
    real, calls = getattr(module, name), count(1)

    def wrapped(*args, **options):
        if next(calls) == call:
            mortal.die()
        return real(*args, **options)

    monkeypatch.setattr(module, name, wrapped)


def dies(monkeypatch: pytest.MonkeyPatch, mortal: Mortal, module, name: str, call: int, work: Callable[[], object]) -> str:
    """What the work says of a server that is killed under it; then the server is there again."""
    with monkeypatch.context() as patch, pytest.raises(StorageError) as told:
        killed_at(patch, module, name, call, mortal)
        work()
    mortal.start()
    return str(told.value)


def is_clear(told: str, mortal: Mortal) -> bool:
    return "no server answers. Start it" in told and mortal.running.endpoint in told and "Traceback" not in told


def step(root: Path, params: Params):
    return record(Workspace.at(root, params.concepts.folder), params, print, force=True)


def test_in_the_middle_of_a_push_and_of_a_pull(mortal, repository, params, admin, bucket, clone, monkeypatch) -> None:
    for slug in SETS:
        write(repository / "data" / "concepts" / slug / "large.png", content(slug, 300_000))
    told = dies(monkeypatch, mortal, objects, "put", 12, lambda: step(repository, params))
    assert is_clear(told, mortal)
    landed = admin.list_objects_v2(Bucket=bucket).get("KeyCount", 0)
    assert 0 < landed < 37
    done = step(repository, params)
    assert done.pushed["objects"] >= 37 - landed and done.commit

    second, expected = clone("second"), digests(repository, "data", "artifacts")
    assert is_clear(dies(monkeypatch, mortal, objects, "get", 12, lambda: bring(second, params)), mortal)
    assert digests(second, "data", "artifacts").items() <= expected.items()  # no half of anything
    again = bring(second, params)
    assert again.lost == {} and again.objects < 37 and digests(second, "data", "artifacts") == expected


def test_in_the_middle_of_publishing(mortal, tmp_path, params, admin, bucket, monkeypatch) -> None:
    params = params.model_copy(update={"publish": params.publish.model_copy(update={"bucket": bucket, "prefix": "site"})})
    publishing.publish(gallery(tmp_path, "old"), params, print)
    new = gallery(tmp_path, "new")
    assert is_clear(dies(monkeypatch, mortal, publishing, "_put", 4, lambda: publishing.publish(new, params, print)), mortal)
    assert mark(seen(admin, bucket)) == "old"
    assert publishing.publish(new, params, print).state == "published" and mark(seen(admin, bucket)) == "new"


def test_in_the_middle_of_the_inbox(mortal, tmp_path, params, admin, bucket, monkeypatch) -> None:
    for slug in ("fern", "lamp"):
        for number in range(12):
            admin.put_object(Bucket=bucket, Key=f"inbox/{slug}/{number}.png", Body=content(f"{slug}{number}", 5_000))
    workspace = Workspace.at(tmp_path, "data/concepts")
    with monkeypatch.context() as patch:
        killed_at(patch, inbox, "_get", 6, mortal)
        arrivals = bring_in(workspace, params, print)
    mortal.start()
    assert [arrival.state for arrival in arrivals] == ["failed", "failed"] and all(is_clear(a.reason, mortal) for a in arrivals)
    again = bring_in(workspace, params, print)
    assert [arrival.state for arrival in again] == ["taken", "taken"] and len(digests(tmp_path, "data")) == 2 * 13
    for slug in ("fern", "lamp"):
        for number in range(12):
            assert (workspace.concepts / slug / f"{number}.png").read_bytes() == content(f"{slug}{number}", 5_000)
