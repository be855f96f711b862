"""The training of a collection on every device of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefect import flow

from tasks.devices import runner_for, shares, submit_share
from ti_pipeline.params import Params
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.starts import together
from ti_pipeline.workspace import Workspace


def train_on_devices(workspace: Workspace, params: Params, names: Sequence[str] | None, *, force: bool) -> list[dict[str, Any]]:
    """Outcomes as JSON, as `run_task` gives them; `params.train.devices` are those to use, one process each."""
    devices = params.train.devices
    parts = shares(together(Run.over(workspace, params, names)), len(devices))
    with TemporaryDirectory() as taken:
        pool = runner_for(devices, Path(taken))
        return _train_shares.with_options(task_runner=pool)(workspace, params, parts, force)


@flow(name="train-on-devices", validate_parameters=False)
def _train_shares(workspace: Workspace, params: Params, parts: list[list[str]], force: bool) -> list[dict[str, Any]]:
    waiting = [submit_share(workspace, params, part, force) for part in parts]
    return [outcome for future in waiting for outcome in future.result()]
