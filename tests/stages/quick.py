"""The stages over a workspace as a command and a task call them, with little to do."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline.params import Params, load
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Outcome, Workspace

ROOT = Path(__file__).parents[2]
QUICK = [
    "train.steps=2", "generate.candidates=2", "generate.steps=2", "rank.best=1", "evaluate.samples=2",
    "evaluate.samples_per_prompt=2", "evaluate.steps=2", "evaluate.bootstrap=10",
]  # fmt: skip


def quick(*overrides: str) -> Params:
    return load(ROOT / "params.yaml", [*QUICK, *overrides])


def run(workspace: Workspace, params: Params, *stages: str, names: list[str] | None = None) -> dict[str, dict[str, Outcome]]:
    return {stage: {o.concept: o for o in run_stage(STAGES[stage], Run.over(workspace, params, names))} for stage in stages}
