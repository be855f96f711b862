"""Real processes that want the same concepts, and what killed ones leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stages.quick import quick, run
from ti_pipeline.files import digest_file
from ti_pipeline.stages.leftovers import sweep
from ti_pipeline.stages.table import STAGES
from ti_pipeline.stages.turns import OVERVIEW, turn
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).parents[2]
HOLD = """
import sys
from pathlib import Path
from ti_pipeline.stages.turns import turn
from ti_pipeline.workspace import Workspace
with turn(Workspace.at(Path(sys.argv[1]), "concepts"), sys.argv[2], sys.argv[3:]):
    print("holds", flush=True)
    sys.stdin.read()
"""
WRITE = """
import sys
from pathlib import Path
from ti_pipeline.files import atomic
from ti_pipeline.stages.turns import turn
from ti_pipeline.workspace import Workspace
workspace = Workspace.at(Path(sys.argv[1]), "concepts")
with turn(workspace, "rank", ["frog"]), atomic(workspace.ranking("frog")) as temporary:
    temporary.write_text("half")
    print("holds", flush=True)
    sys.stdin.read()
"""
RUN = """
import sys
from pathlib import Path
from tests.stages.quick import quick, run
from ti_pipeline.workspace import Workspace
made = run(Workspace.at(Path(sys.argv[1]), "concepts"), quick(), *sys.argv[2:])
sys.exit(sum(not outcome.ok for outcomes in made.values() for outcome in outcomes.values()))
"""


@pytest.fixture()
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace.at(tmp_path, "concepts")
    for name in ("fox", "frog"):
        shutil.copytree(ROOT / "examples" / "concepts" / name, place.concepts / name)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return place


@pytest.fixture()
def started() -> Iterator[list[subprocess.Popen]]:
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def begin(started: list[subprocess.Popen], script: str, workspace: Workspace, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-c", script, str(workspace.root), *words]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started.append(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
    return started[-1]


def holder(started: list[subprocess.Popen], workspace: Workspace, stage: str, *names: str) -> subprocess.Popen:
    process = begin(started, HOLD, workspace, stage, *names)
    assert process.stdout.readline() == "holds\n"
    return process


def test_one_waits_for_who_has_the_same_concept_of_the_same_stage_only(started: list[subprocess.Popen], workspace: Workspace) -> None:
    other = holder(started, workspace, "train", "fox", "hat")
    for stage, names, free in (
        ("train", ["fox"], False), ("train", ["cup", "hat"], False), ("train", ["frog"], True), ("rank", ["fox"], True), ("train", [], True)
    ):  # fmt: skip
        with turn(workspace, stage, names, wait=False) as mine:
            assert mine == free, (stage, names)
    with turn(workspace, "train", ["frog"]), turn(workspace, "train", ["frog"], wait=False) as mine:
        assert not mine  # threads of one process keep out of each other's way too
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    (workspace.artifacts / "locks" / "train-0.held").write_text("")  # of one that died before it said what it has
    with turn(workspace, "train", ["hat"], wait=False) as mine:
        assert mine
    assert not list((workspace.artifacts / "locks").glob("*.held"))


def test_the_second_says_for_whom_it_waits_and_goes_on(started: list[subprocess.Popen], workspace: Workspace) -> None:
    run(workspace, quick(), "validate")
    other = holder(started, workspace, "train", "fox")
    second = begin(started, RUN, workspace, "train")
    said = next(line for line in second.stderr if "waiting" in line)
    assert f"train of fox: waiting for process {other.pid} (`-c {workspace.root}`), since " in said
    assert second.poll() is None and not workspace.embedding("frog").exists()
    os.kill(other.pid, signal.SIGKILL)
    out, err = second.communicate(timeout=300)
    assert second.returncode == 0, out + err
    assert workspace.embedding("fox").is_file() and workspace.embedding("frog").is_file()


@pytest.mark.slow
def test_two_processes_at_once_make_what_one_makes(started: list[subprocess.Popen], workspace: Workspace) -> None:
    for process in [begin(started, RUN, workspace, *STAGES) for _ in range(2)]:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
    made = {path.relative_to(workspace.root): digest_file(path) for path in workspace.artifacts.rglob("*") if path.is_file()}
    assert len(made) > 100 and not [path for path in made if path.name.startswith(".")]
    alone = Workspace.at(workspace.root / "alone", "../concepts")
    run(alone, quick(), *STAGES)
    for path, digest in made.items():
        if path.suffix in (".parquet", ".safetensors", ".png"):
            assert digest_file(alone.root / path) == digest, path


def test_what_killed_processes_left_goes_and_what_live_ones_write_stays(started: list[subprocess.Popen], workspace: Workspace) -> None:
    run(workspace, quick(), *STAGES)
    before = files(workspace)
    places = {
        "validate": ["{}", "_reasons/{}"], "train": ["frog/{}", "{}"], "generate": ["frog/{}"], "rank": ["{}"],
        "evaluate": ["concepts/{}", "pictures/frog/{}", "{}"], "gallery": ["frog/pictures/{}", "_site/vendor/{}", "{}"],
        "compare": ["cells/frog/{}", "{}"],
    }  # fmt: skip
    halves = [STAGES[stage].folder(workspace) / place.format(".frog-a_b1c2d3.json") for stage in STAGES for place in places[stage]]
    halves += [workspace.embedding("frog").parent / ".learned_embeds-new.safetensors"]
    halves += [workspace.checkpoint("x").with_name(".frog-a_b1c2d3.safetensors")]
    others = [STAGES[stage].folder(workspace) / place for stage, place in (("train", ".DS_Store"), ("rank", ".frog-a_b1c2d3-2.parquet"))]
    for path in (*halves, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")

    writer = begin(started, WRITE, workspace)
    assert writer.stdout.readline() == "holds\n"
    (half,) = files(workspace) - before - {*halves, *others}
    halves.append(half)
    for stage in STAGES:
        holder(started, workspace, stage, *(["frog"] if stage != "rank" else []), OVERVIEW)
    for stage in STAGES:
        if STAGES[stage].begin or STAGES[stage].finish:  # it writes what is of no concept, and would wait for that turn
            sweep(workspace, STAGES[stage], ["fox"])
        else:
            run(workspace, quick(), stage, names=["fox"])
    assert all(path.is_file() for path in halves)
    for process in started:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run(workspace, quick(), *STAGES, names=["fox", "frog"])
    assert files(workspace) == before | set(others)


def files(workspace: Workspace) -> set[Path]:
    return {path for path in workspace.artifacts.rglob("*") if path.is_file() and path.parent.name != "locks"}
