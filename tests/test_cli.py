"""The command, from pictures to pages, on the embedded model: what it does, says and leaves with."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from ti_pipeline.files import digest_file

ROOT = Path(__file__).parent.parent
QUICK = [
    "train.steps=4", "train.checkpoint_every=2", "generate.candidates=3", "generate.steps=4", "rank.best=2",
    "evaluate.samples=3", "evaluate.samples_per_prompt=2", "evaluate.steps=3", "evaluate.bootstrap=50",
]  # fmt: skip
STAGES = ("validate", "train", "generate", "rank", "evaluate", "gallery")


def call(*words: str, workspace: Path, sets: list[str] | None = None, timeout: float = 300) -> subprocess.CompletedProcess:
    options = [word for override in (QUICK if sets is None else sets) for word in ("--set", override)]
    command = [sys.executable, "-m", "flows.commands", *words, "--workspace", str(workspace), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=workspace)


@pytest.fixture()
def workspace(tmp_path: Path) -> Path:
    """One good concept, one that holds nothing usable, one whose settings are wrong."""
    concepts = tmp_path / "examples" / "concepts"
    shutil.copytree(ROOT / "examples" / "concepts" / "frog", concepts / "frog")
    (concepts / "broken").mkdir()
    (concepts / "broken" / "a.jpg").write_bytes(b"no picture")
    shutil.copytree(ROOT / "examples" / "concepts" / "fox", concepts / "typo")
    (concepts / "typo" / "concept.yaml").write_text("kin: object\n")
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


@pytest.mark.slow
def test_one_bad_concept_never_stops_the_others_and_a_second_run_does_nothing(workspace: Path):
    for stage in STAGES:
        done = call(stage, "--json", workspace=workspace)
        assert "Traceback" not in done.stderr, done.stderr
        state = {outcome["concept"]: outcome for outcome in json.loads(done.stdout)}
        assert state["frog"]["state"] == "done", done.stdout
        assert state["broken"]["state"] == "quarantined" and "a.jpg" in state["broken"]["reason"]
        assert done.returncode == 1
        if stage == "validate":
            assert state["typo"]["state"] == "quarantined" and "kin" in state["typo"]["reason"]
    assert (workspace / "artifacts" / "galleries" / "frog" / "index.html").is_file()
    metrics = json.loads((workspace / "artifacts" / "evaluation" / "metrics.json").read_text())
    assert metrics["concepts"] == 1

    files = {f: digest_file(f) for f in (workspace / "artifacts").rglob("*") if f.is_file()}
    for stage in STAGES:
        again = call(stage, "frog", "--json", workspace=workspace)
        assert [outcome["state"] for outcome in json.loads(again.stdout)] == ["up-to-date"] and again.returncode == 0
    assert {f: digest_file(f) for f in (workspace / "artifacts").rglob("*") if f.is_file()} == files

    status = call("status", "--json", workspace=workspace)
    rows = {row["concept"]: row for row in json.loads(status.stdout)}
    assert set(rows["frog"]["stages"].values()) == {"up-to-date"}
    assert set(rows["typo"]["stages"].values()) == {"quarantined"}

    changed = call("status", "--json", workspace=workspace, sets=[*QUICK, "generate.guidance_scale=4"])
    frog = next(row for row in json.loads(changed.stdout) if row["concept"] == "frog")["stages"]
    assert (frog["train"], frog["generate"], frog["gallery"]) == ("up-to-date", "stale", "stale")


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_in_another_folder_and_after_a_kill(workspace: Path, tmp_path_factory: pytest.TempPathFactory):
    other = tmp_path_factory.mktemp("other")
    shutil.copytree(workspace / "examples", other / "examples")
    shutil.copy(workspace / "params.yaml", other / "params.yaml")
    steps = [*QUICK, "train.steps=60"]
    for stage in ("validate", "train", "generate", "rank"):
        assert call(stage, "frog", workspace=workspace, sets=steps).returncode == 0

    assert call("validate", "frog", workspace=other, sets=steps).returncode == 0
    options = [word for override in steps for word in ("--set", override)]
    command = [sys.executable, "-m", "flows.commands", "train", "frog", "--workspace", str(other), *options]
    killed = subprocess.Popen(command, cwd=other, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = other / "artifacts" / "checkpoints" / "frog.safetensors"
    while killed.poll() is None and not checkpoint.is_file():
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert checkpoint.is_file() and not (other / "artifacts" / "embeddings" / "frog" / "learned_embeds.safetensors").exists()
    for stage in ("train", "generate", "rank"):
        assert call(stage, "frog", workspace=other, sets=steps).returncode == 0
    for name in ("embeddings/frog/learned_embeds.safetensors", "rankings/frog.parquet"):
        assert digest_file(workspace / "artifacts" / name) == digest_file(other / "artifacts" / name)


@pytest.mark.parametrize(
    ("words", "sets", "expected"),
    [
        (["validate"], ["train.stps=5"], "there is no `stps`"),
        (["validate"], ["train.steps=many"], "train.steps"),
        (["validate"], ["concepts.folder=nowhere"], "nowhere"),
        (["validate", "frgo"], [], "Did you mean frog"),
        (["train"], ["generator.model=/nowhere/model"], "/nowhere/model"),
        (["frobnicate"], [], "frobnicate"),
    ],
)
def test_a_wrong_call_is_told_in_words_with_status_2(workspace: Path, words: list[str], sets: list[str], expected: str):
    if words == ["train"]:
        assert call("validate", "frog", workspace=workspace).returncode == 0
    done = call(*words, workspace=workspace, sets=sets)
    assert done.returncode == 2, done.stdout + done.stderr
    assert expected in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_is_told_with_status_3(workspace: Path):
    """No file may grow: the kernel refuses each write without naming a file, as on a full disk."""
    command = [sys.executable, "-m", "ti_pipeline.cli", "validate", "--workspace", str(workspace)]
    ready = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)), "env": os.environ | {"PYTHONPATH": str(ROOT)}}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=workspace, **ready)
    assert done.returncode == 3 and f"ti-pipeline: {workspace / 'artifacts'}" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_without_params_it_says_where_to_find_them(tmp_path: Path):
    done = call("validate", workspace=tmp_path, sets=[])
    assert done.returncode == 2 and "params.yaml" in done.stderr


def test_the_examples_are_small_pictures_of_held_out_things():
    sets = [folder for folder in (ROOT / "examples" / "concepts").iterdir() if folder.is_dir()]
    assert len(sets) == 5
    for folder in sets:
        pictures = list(folder.glob("*.png"))
        assert 3 <= len(pictures) <= 5
        for picture in pictures:
            with Image.open(picture) as opened:
                assert min(opened.size) >= 64
