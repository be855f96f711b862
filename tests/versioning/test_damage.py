"""A flipped byte in the remote: it is named, everything else comes back, and no wrong byte reaches a stage."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
import yaml

from tests.versioning.small import digests
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.remote import place, point, pull, restore
from ti_pipeline.versioning.repository import repository as opened
from ti_pipeline.workspace import Workspace

TRIES = 100


@pytest.fixture()
def two(repository, params, clone) -> tuple[Path, dict[str, str]]:
    """A clone with the image sets and one stage of the record, and the digests of what it should have."""
    pipeline = yaml.safe_load((repository / "dvc.yaml").read_text())
    (repository / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"validate": pipeline["stages"]["validate"]}}))
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True})})
    record(Workspace.at(repository, "data/concepts"), committing, print, force=True)
    return clone("second"), digests(repository, "data/concepts", "artifacts/manifests")


def bring(root: Path, params):
    point(root, params.storage)
    with opened(root) as repo:
        pulled = pull(repo, place(root, params.storage), params.storage)
        restore(repo, pulled.lost)
    return pulled


def lost_files(lost: dict[str, str], expected: dict[str, str]) -> set[str]:
    """Of a folder whose listing is lost, every file."""
    return {path for path in expected if any(path == name or path.startswith(f"{name}/") for name in lost)}


def test_a_flipped_byte_is_named_and_all_others_come_back(two, params, admin, bucket) -> None:
    root, expected = two
    objects = [entry["Key"] for entry in admin.list_objects_v2(Bucket=bucket, Prefix="dvc/")["Contents"]]
    assert len(objects) == 9 + 3 + 2
    chance, hit = random.Random(0), set()
    for _ in range(TRIES):
        key = chance.choice(objects)
        data = admin.get_object(Bucket=bucket, Key=key)["Body"].read()
        at = chance.randrange(len(data))
        admin.put_object(Bucket=bucket, Key=key, Body=data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :])
        for folder in (".dvc/cache", "artifacts", "data/concepts"):
            shutil.rmtree(root / folder, ignore_errors=True)
        pulled = bring(root, params)
        (name,) = pulled.lost
        assert "is damaged" in pulled.lost[name] and key.removeprefix("dvc/") in pulled.lost[name]
        missing = lost_files(pulled.lost, expected)
        assert digests(root, "data/concepts", "artifacts") == {path: digest for path, digest in expected.items() if path not in missing}
        assert len(missing) == 1 or key.endswith(".dir")
        admin.put_object(Bucket=bucket, Key=key, Body=data)
        hit.add(key)
    assert len(hit) == len(objects)
    assert bring(root, params).lost == {} and digests(root, "data/concepts", "artifacts") == expected


def test_a_removed_object_is_named_and_pushed_again(two, repository, params, admin, bucket) -> None:
    root, expected = two
    key = next(
        entry["Key"] for entry in admin.list_objects_v2(Bucket=bucket, Prefix="dvc/")["Contents"] if not entry["Key"].endswith(".dir")
    )
    admin.delete_object(Bucket=bucket, Key=key)
    (name,) = (pulled := bring(root, params)).lost
    assert "is not there. Push it" in pulled.lost[name] and len(digests(root, "data/concepts", "artifacts")) == len(expected) - 1
    again = record(Workspace.at(repository, "data/concepts"), params, print, force=True)
    assert again.pushed["objects"] == 1  # the listing of its folder is there, and yet it is found to be missing
    assert bring(root, params).lost == {} and digests(root, "data/concepts", "artifacts") == expected


def test_a_file_of_ones_own_is_not_overwritten_by_what_is_lost(two, repository, params, admin, bucket) -> None:
    root, expected = two
    bring(root, params)
    mine = root / "data" / "concepts" / "fern" / "mine.png"
    mine.write_bytes(b"my own")
    bring(root, params)
    assert mine.read_bytes() == b"my own"
