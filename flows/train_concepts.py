"""From folders of pictures to ranked galleries.

ti-pipeline run                                  here, with a server of its own
prefect deployment run train-concepts/on-demand  on a worker (prefect.yaml)
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed, Failed

from flows.train_on_devices import train_on_devices
from tasks.failures import explained
from tasks.report import report
from tasks.stages import TASKS, counted, run_stage
from tasks.versions import keep, merged, take_in
from ti_pipeline.params import load
from ti_pipeline.workspace import Workspace

Stage = Literal["validate", "train", "generate", "rank", "evaluate", "gallery"]


@flow(name="train-concepts", persist_result=True, result_serializer="json")
def train_concepts(
    workspace: str,
    params: str,
    overrides: Sequence[str] = (),
    concepts: list[str] | None = None,
    force: bool = False,
    stages: list[Stage] | None = None,
) -> dict[str, Any]:
    """Validate the image sets, learn a word for each, generate candidates, rank them, evaluate the words, build the galleries.

    A concept that falls out of one stage is reported with its reason and the others go on without it; what stands already is
    passed over. New sets come from the inbox first; what the run has changed is recorded and published last, where the settings
    have a place for it. `stages` runs some of the six only, in their order. Returns `tasks.report.report`'s summary; raises
    PipelineError for wrong settings and for what stopped a whole stage. A run that lost a concept ends as `Incomplete`.
    """
    stage, began = "params", datetime.now(UTC)
    try:
        settings = load(Path(params), tuple(overrides))
        place = Workspace.at(Path(workspace), settings.concepts.folder)
        taken = take_in(place, settings)
        names, outcomes = concepts, []
        for stage in (name for name in TASKS if stages is None or name in stages):
            several = stage == "train" and len(settings.train.devices) > 1
            done = (train_on_devices if several else partial(run_stage, stage))(place, settings, names, force=force)
            outcomes += done
            names = [outcome["concept"] for outcome in done if outcome["state"] in ("done", "up-to-date")]
            if not names:
                break
    except Exception as error:
        if (told := explained(error, stage)) is None:
            raise
        return Failed(message=str(told), data=told)
    summary = report(place, outcomes)
    summary = merged(summary, taken, keep(place, settings, summary, began))
    whole = not summary["reasons"] and not summary["troubles"]
    message = "; ".join([counted(summary["concepts"].values()), *(f"{step}: {why}" for step, why in summary["troubles"].items())])
    return Completed(name="Completed" if whole else "Incomplete", message=message, data=summary)
