"""From folders of pictures to ranked galleries.

ti-pipeline run                                  here, with a server of its own
prefect deployment run train-concepts/on-demand  on a worker (prefect.yaml)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import State, flow, get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.train_on_devices import train_on_devices
from tasks.failures import explained
from tasks.report import show, summarise
from tasks.stages import TASKS, counted, run_task
from tasks.turn import as_flow_run
from tasks.versions import keep, merged, take_in
from ti_pipeline.errors import ParamsError
from ti_pipeline.params import Params, load
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Workspace

if TYPE_CHECKING:
    Stage = str
else:
    Stage = Literal[tuple(STAGES)]  # so that Prefect's pages offer them
WORKSPACE = "TI_PIPELINE_WORKSPACE"
LOSSES = {"inbox", "versions", "published"}  # whole steps; one set of the inbox that is refused is a concept that fell out


@flow(name="train-concepts", persist_result=True, result_serializer="json")
def train_concepts(
    workspace: str | None = None,
    params: str | None = None,
    overrides: Sequence[str] = (),
    concepts: list[str] | None = None,
    force: bool = False,
    stages: list[Stage] | None = None,
) -> State[Any]:
    """Validate the image sets, learn a word for each, generate candidates, rank them, evaluate the words, build the galleries.

    `workspace` is by default what $TI_PIPELINE_WORKSPACE says where the flow runs, `params` the workspace's own params.yaml.
    A concept that falls out of one stage is reported with its reason and the others go on without it; what stands already is
    passed over. New sets come from the inbox first; what the run has changed is recorded and published last, where the settings
    have a place for it. `stages` runs some of them only, in their order. One run at a time works in a workspace.

    Ends as `Completed`; as `Incomplete`, which Prefect counts as completed, when some concepts fell out; and as `Failed`, after
    everything else is done, when every concept did, or what came of them could not be taken in, recorded or published. The result
    of each is the summary (`tasks.report.summarise`, with the parts of `tasks.versions`). `Failed` with a PipelineError for wrong
    settings and for what stopped a whole stage.
    """
    stage, began = "params", datetime.now(UTC)
    try:
        place, settings = _open(workspace, params, overrides)
        stage = "run"
        with as_flow_run(place.root, str(flow_run.get_id()), get_run_logger().info):
            taken = take_in(place, settings)
            names, outcomes = concepts, []
            for stage in (name for name in TASKS if stages is None or name in stages):
                several = stage == "train" and len(settings.train.devices) > 1
                done = (train_on_devices if several else partial(run_task, stage))(place, settings, names, force=force)
                outcomes += done
                names = [outcome["concept"] for outcome in done if outcome["state"] in ("done", "up-to-date")]
                if not names:
                    break
            summary = summarise(place, outcomes)
            summary = merged(summary, taken, keep(place, settings, summary, began))
            show(place, outcomes)
            return ended(summary)
    except Exception as error:
        if (told := explained(error, stage)) is None:
            raise
        return Failed(message=str(told), data=told)


def _open(workspace: str | None, params: str | None, overrides: Sequence[str]) -> tuple[Workspace, Params]:
    given = workspace or os.environ.get(WORKSPACE)
    if not given:
        raise ParamsError(f"workspace: none is given. Name its folder, or set {WORKSPACE} where the worker runs.")
    root = Path(given)
    settings = load(root / (params or "params.yaml"), tuple(overrides))
    return Workspace.open(root, settings.concepts.folder), settings


def ended(summary: Mapping[str, Any]) -> State[dict[str, Any]]:
    """The state that says what the summary says: whoever watches Prefect sees the type, not the name."""
    message = "; ".join([counted(summary["concepts"].values()), *(f"{step}: {why}" for step, why in summary["troubles"].items())])
    lost = summary["concepts"] and summary["reasons"].keys() == summary["concepts"].keys()
    if lost or LOSSES & summary["troubles"].keys():
        return Failed(message=message, data=summary)
    whole = not summary["reasons"] and not summary["troubles"]
    return Completed(name="Completed" if whole else "Incomplete", message=message, data=summary)
