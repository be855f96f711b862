"""Stages one after the other in a workspace: what every flow over a collection does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import State, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.train_on_devices import train_on_devices
from tasks.failures import explained
from tasks.report import show, summarise
from tasks.stages import check, counted, run_task
from tasks.turn import as_flow_run
from tasks.versions import keep, merged, take_in
from ti_pipeline.errors import ParamsError
from ti_pipeline.params import Params, load
from ti_pipeline.workspace import Workspace

WORKSPACE = "TI_PIPELINE_WORKSPACE"
LOSSES = {"inbox", "versions", "published", "hub"}  # whole steps; one set of the inbox that is refused is a concept that fell out


@dataclass(frozen=True)
class Call:
    """What a flow is called with. `workspace` is by default what $TI_PIPELINE_WORKSPACE says where it runs, `params` the workspace's own
    params.yaml, which `overlay`, a file with other values of some keys, and `overrides` change."""

    workspace: str | None
    params: str | None
    overrides: Sequence[str]
    concepts: list[str] | None
    force: bool
    overlay: str | None = None

    def open(self) -> tuple[Workspace, Params]:
        given = self.workspace or os.environ.get(WORKSPACE)
        if not given:
            raise ParamsError(f"workspace: none is given. Name its folder, or set {WORKSPACE} where the worker runs.")
        root = Path(given)
        overlay = root / self.overlay if self.overlay else None
        settings = load(root / (self.params or "params.yaml"), tuple(self.overrides), overlay)
        return Workspace.open(root, settings.concepts.folder), settings


def run_stages(call: Call, chosen: Callable[[Params], Sequence[str]], *, whole: bool = True) -> State[Any]:
    """Run the stages that are chosen for the params, in their order; a concept that falls out of one is not in the next.

    What has changed is recorded. A `whole` run takes new sets in from the inbox before, and publishes what came of them behind.
    Ends as `Completed`; as `Incomplete`, which Prefect counts as completed, when some concepts fell out; and as `Failed`, after
    everything else is done, when every concept did, or what came of them could not be taken in, recorded or published. The result
    of each is the summary (`tasks.report.summarise`, with the parts of `tasks.versions`). `Failed` with a PipelineError for wrong
    settings and for what stopped a whole stage.
    """
    stage, began = "params", datetime.now(UTC)
    try:
        place, settings = call.open()
        stage = "run"
        with as_flow_run(place.root, str(flow_run.get_id()), get_run_logger().info):
            stages = chosen(settings)
            check(stages, place, settings)
            taken = take_in(place, settings) if whole else {}
            names, outcomes = call.concepts, []
            for stage in stages:
                several = stage == "train" and len(settings.train.devices) > 1
                done = (train_on_devices if several else partial(run_task, stage))(place, settings, names, force=call.force)
                outcomes += done
                names = [outcome["concept"] for outcome in done if outcome["state"] in ("done", "up-to-date")]
                if not names:
                    break
            summary = summarise(place, outcomes)
            summary = merged(summary, taken, keep(place, settings, summary, began if whole else None))
            show(place, outcomes)
            return ended(summary)
    except Exception as error:
        if (told := explained(error, stage)) is None:
            raise
        return Failed(message=str(told), data=told)


def ended(summary: Mapping[str, Any]) -> State[dict[str, Any]]:
    """The state that says what the summary says: whoever watches Prefect sees the type, not the name."""
    message = "; ".join([counted(summary["concepts"].values()), *(f"{step}: {why}" for step, why in summary["troubles"].items())])
    lost = summary["concepts"] and summary["reasons"].keys() == summary["concepts"].keys()
    if lost or LOSSES & summary["troubles"].keys():
        return Failed(message=message, data=summary)
    whole = not summary["reasons"] and not summary["troubles"]
    return Completed(name="Completed" if whole else "Incomplete", message=message, data=summary)
