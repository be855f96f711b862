"""What a stage's task does beside the stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks.stages import TASKS
from tests.stages.quick import quick
from ti_pipeline.workspace import Workspace

EXAMPLES = Path(__file__).parents[2] / "examples" / "concepts"


@pytest.mark.parametrize("names", [None, ["fox"]])
def test_a_flow_over_the_whole_collection_removes_what_is_withdrawn(tmp_path: Path, names: list[str] | None) -> None:
    """Its later stages are given names, and a stage with names removes nothing."""
    workspace = Workspace.at(tmp_path, "concepts")
    for name in ("fox", "frog"):
        shutil.copytree(EXAMPLES / name, workspace.concepts / name)
    validate = TASKS["validate"].fn
    with disable_run_logger():
        validate(workspace, quick(), None, force=False)
        workspace.embedding("frog").parent.mkdir(parents=True)
        shutil.rmtree(workspace.concepts / "frog")
        validate(workspace, quick(), names, force=False)
    assert workspace.embedding("frog").parent.exists() == workspace.manifest("frog").exists() == (names is not None)
