"""Two processes, each with a device of its own, over one collection."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tasks.devices import shares
from tests.flows.processes import ROOT
from ti_pipeline.params import load
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Workspace


def test_shares_are_whole_packs_and_the_same_every_time() -> None:
    slugs = [f"c{i:03}" for i in range(100)]
    alone = [[slug] for slug in slugs]
    assert [len(share) for share in shares(alone, 2)] == [24, 24, 24, 24, 4]
    assert [len(share) for share in shares(alone[:5], 2)] == [3, 2]
    assert [name for share in shares(alone, 3) for name in share] == slugs
    assert [len(share) for share in shares([[f"c{i}"] for i in range(1000)], 2)] == [125] * 8
    assert shares([["a"], ["b", "c"], ["d"], ["e"]], 2) == [["a", "b", "c"], ["d", "e"]]
    assert shares([["a"], ["b", "c", "d"], ["e"]], 2) == [["a"], ["b", "c", "d"], ["e"]] and shares([], 2) == []


RUN = """
import json, sys
from flows.train_concepts import train_concepts
print(json.dumps(train_concepts(**json.loads(sys.argv[1]))))
"""


@pytest.mark.slow
def test_two_processes_train_one_collection(server: dict[str, str], tmp_path: Path) -> None:
    for slug in ("fox", "frog", "ladybug"):
        shutil.copytree(ROOT / "examples" / "concepts" / slug, tmp_path / "concepts" / slug)
    (tmp_path / "concepts" / "ladybug" / "concept.yaml").write_text("token: apple\n")
    sets = ["concepts.folder=concepts", "train.steps=3", "generator.precision=float32", "generator.device=cpu"]
    call = {"workspace": str(tmp_path), "params": str(ROOT / "params.yaml"), "stages": ["train"]}
    place, settings = Workspace.at(tmp_path, "concepts"), load(ROOT / "params.yaml", sets)
    checked = {outcome.concept: outcome.ok for outcome in run_stage(STAGES["validate"], Run.over(place, settings))}
    assert checked == {"fox": True, "frog": True, "ladybug": False}
    spread = json.dumps(call | {"overrides": [*sets, "train.devices=[cpu, cpu]"]})
    done = subprocess.run([sys.executable, "-c", RUN, spread], env=server, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["concepts"] == {"fox": "done", "frog": "done"}, summary
    runs = httpx.post(f"{server['PREFECT_API_URL']}/task_runs/filter", json={}).raise_for_status().json()
    assert len([run for run in runs if run["name"].startswith("train-share")]) == 2
    assert [outcome.state for outcome in run_stage(STAGES["train"], Run.over(place, settings))] == ["up-to-date"] * 2
