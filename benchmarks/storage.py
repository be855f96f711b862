"""DVC's push and pull against boto3 alone: the same bytes, the same concurrency, the same server.

python -m benchmarks.storage [--sets 200] [--per-set 5] [--bytes 100000] [--jobs 16] [--rounds 3]

Results go to benchmarks/results/storage.json and .md. Bar: each within 3 times of boto3's time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import yaml
from botocore.config import Config

from ti_pipeline.params import Params
from ti_pipeline.versioning import git
from ti_pipeline.versioning.local_server import Server, serving
from ti_pipeline.versioning.remote import place, point, pull, push, restore
from ti_pipeline.versioning.repository import repository

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
BAR = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=200)
    parser.add_argument("--per-set", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="storage-") as folder:
        os.environ["DVC_SITE_CACHE_DIR"] = f"{folder}/site"
        with serving(Path(folder) / "s3") as server:
            os.environ.update(server.environment)
            rounds = [one_round(Path(folder) / f"round-{number}", server, given, number) for number in range(given.rounds)]
    write(given, rounds)


def one_round(folder: Path, server: Server, given: argparse.Namespace, number: int) -> dict[str, float]:
    """Seconds of the four, each in a bucket of its own."""
    client = boto3.client("s3", endpoint_url=server.endpoint, config=Config(max_pool_connections=given.jobs))
    plain, dvc = f"plain-{number}", f"dvc-{number}"
    for bucket in (plain, dvc):
        client.create_bucket(Bucket=bucket)
    pictures = make(folder / "workspace", given)
    names = [path.relative_to(folder).as_posix() for path in pictures]
    params = settings(server.endpoint, dvc, given.jobs)
    times: dict[str, float] = {}
    with timed(times, "boto3 put"), ThreadPoolExecutor(given.jobs) as pool:
        list(
            pool.map(
                lambda path: client.put_object(Bucket=plain, Key=path.relative_to(folder).as_posix(), Body=path.read_bytes()), pictures
            )
        )
    with timed(times, "boto3 get"), ThreadPoolExecutor(given.jobs) as pool:
        for name in names:
            (folder / "plain" / name).parent.mkdir(parents=True, exist_ok=True)
        list(pool.map(lambda name: get(client, plain, name, folder / "plain" / name), names))
    root = folder / "workspace"
    with repository(root) as repo:
        repo.add(str(root / "data" / "concepts"))
        point(root, params.storage)
        repo.config.load()
        with timed(times, "push"):
            pushed = push(repo, place(root, params.storage), params.storage)
    assert pushed.objects == len(pictures) + 1
    shutil.rmtree(root / ".dvc" / "cache")
    shutil.rmtree(root / "data" / "concepts")
    with repository(root) as repo:
        with timed(times, "pull"):
            pulled = pull(repo, place(root, params.storage), params.storage)
            restore(repo, pulled.lost)
    assert all(path.is_file() for path in pictures) and not pulled.lost
    return times


def make(root: Path, given: argparse.Namespace) -> list[Path]:
    root.mkdir(parents=True)
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)
    assert git.in_git(root)
    pictures = [root / "data" / "concepts" / f"set-{s:03}" / f"{p}.jpg" for s in range(given.sets) for p in range(given.per_set)]
    for path in pictures:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(given.bytes))
    return pictures


def settings(endpoint: str, bucket: str, jobs: int) -> Params:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["storage"] |= {"endpoint": endpoint, "bucket": bucket, "region": "us-east-1", "jobs": jobs}
    return Params.model_validate(tree)


def get(client: Any, bucket: str, name: str, target: Path) -> None:
    target.write_bytes(client.get_object(Bucket=bucket, Key=name)["Body"].read())


class timed:
    """Seconds of the block, under a name."""

    def __init__(self, times: dict[str, float], name: str):
        self.times, self.name = times, name

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.times[self.name] = time.perf_counter() - self.began


def write(given: argparse.Namespace, rounds: list[dict[str, float]]) -> None:
    middle = {name: statistics.median(times[name] for times in rounds) for name in rounds[0]}
    ratios = {"push": middle["push"] / middle["boto3 put"], "pull": middle["pull"] / middle["boto3 get"]}
    machine = f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, {platform.system()}"
    whole = {"settings": vars(given), "machine": machine, "rounds": rounds, "median": middle, "ratios": ratios, "bar": BAR}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "storage.json").write_text(json.dumps(whole, indent=2) + "\n")
    lines = [
        f"{given.sets * given.per_set} files of {given.bytes} bytes in {given.sets} sets, {given.jobs} at the same time, {machine};",
        f"median of {given.rounds} rounds, seconds. Push and pull check every digest, and pull writes the workspace too.", "",
        "| | boto3 alone | DVC | ratio | bar |", "|---|---|---|---|---|",
        *(
            f"| {name} | {middle[plain]:.2f} | {middle[name]:.2f} | {ratios[name]:.2f} | {BAR:.0f} |"
            for name, plain in (("push", "boto3 put"), ("pull", "boto3 get"))
        ),
    ]  # fmt: skip
    (RESULTS / "storage.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
