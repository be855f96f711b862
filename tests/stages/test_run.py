"""The stages as a command and a task call them, with the embedded model."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from ti_pipeline.params import load
from ti_pipeline.stages.generate import GENERATE
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE
from ti_pipeline.workspace import Workspace

ROOT = Path(__file__).parents[2]
SMALL = ["train.pack=2", "train.steps=3", "generate.candidates=2", "generate.steps=2", "generate.briefs={object: ['a {token}']}"]


def test_concepts_that_are_worked_on_together_share_the_time(tmp_path: Path):
    workspace, params = Workspace.at(tmp_path, "concepts"), load(ROOT / "params.yaml", SMALL)
    for slug, settings in (("one", "steps: 3"), ("two", "steps: 6\nbriefs: ['a {token}', 'two {token}']")):
        shutil.copytree(ROOT / "tests/data/duck-toy", workspace.concepts / slug)
        (workspace.concepts / slug / "concept.yaml").write_text(f"initializer: duck\n{settings}\n")
    run_stage(VALIDATE, Run.over(workspace, params))
    for stage in (TRAIN, GENERATE):
        began = time.monotonic()
        outcomes = run_stage(stage, Run.over(workspace, params))
        passed = time.monotonic() - began
        assert [outcome.state for outcome in outcomes] == ["done", "done"]
        parts = [outcome.seconds for outcome in outcomes]
        assert 0 < sum(parts) <= passed  # each with the whole of it would have twice as much
        assert parts[1] > parts[0]
        if stage is GENERATE:
            assert parts[1] == pytest.approx(2 * parts[0])
        assert [outcome.seconds for outcome in run_stage(stage, Run.over(workspace, params))] == [0, 0]
