"""A repository that DVC and Git take for a workspace, small enough for hundreds of pushes."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from ti_pipeline.files import digest_file
from ti_pipeline.params import Params
from ti_pipeline.versioning.remote import Pulled, place, point, pull, restore
from ti_pipeline.versioning.repository import repository

ROOT = Path(__file__).resolve().parents[2]
SETS = ("bear", "fern", "lamp")
STAGES = ("validate", "train", "generate", "rank", "evaluate", "gallery")
OUTPUTS = ("manifests", "embeddings", "candidates", "rankings", "evaluation", "galleries")


def configured(endpoint: str, bucket: str | None, **sections: dict) -> Params:
    """The settings of the repository with the storage that a test has; `sections` {name: {key: value}} change others."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["concepts"]["folder"] = "data/concepts"
    tree["storage"] |= {"endpoint": endpoint, "bucket": bucket, "region": "us-east-1", "jobs": 8}
    for name, values in sections.items():
        tree[name] |= values
    return Params.model_validate(tree)


def bring(root: Path, params: Params, below: Sequence[str] = ()) -> Pulled:
    """Pull, and put back what the remote could not give, as the command does."""
    point(root, params.storage)
    with repository(root) as repo:
        pulled = pull(repo, place(root, params.storage), params.storage, below)
        restore(repo, pulled.lost, below)
    return pulled


def small_repository(root: Path) -> None:
    """Three sets of three files, and for every stage an output of a few files, as `dvc.yaml` has them."""
    root.mkdir()
    for slug in SETS:
        for number in range(3):
            write(root / "data" / "concepts" / slug / f"{number}.png", content(f"{slug}/{number}"))
    for output in OUTPUTS:
        for slug in SETS:
            write(root / "artifacts" / output / slug / "file.bin", content(f"{output}/{slug}"))
    stages = {}
    for number, (stage, output) in enumerate(zip(STAGES, OUTPUTS, strict=True)):
        before = f"artifacts/{OUTPUTS[number - 1]}" if number else "data/concepts"
        stages[stage] = {"cmd": "true", "deps": [before], "params": ["seed"], "outs": [{f"artifacts/{output}": {"persist": True}}]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["concepts"]["folder"] = "data/concepts"
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (root / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore", ".dvcignore"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    for words in (["init", "--quiet", "--initial-branch=main"], ["add", "."], ["commit", "--quiet", "--message", "Start"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=root, check=True)


def content(seed: str, size: int = 2000) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def digests(root: Path, *folders: str) -> dict[str, str]:
    """{path: SHA-256} of all files below the folders."""
    found = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): digest_file(path) for path in sorted(found)}
