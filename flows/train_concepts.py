"""From folders of pictures to ranked galleries.

    ti-pipeline run                                  here, with a server of its own
    prefect deployment run train-concepts/on-demand  on a worker (prefect.yaml)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from prefect import flow
from prefect.states import Completed, Failed

from tasks.failures import explained
from tasks.report import report
from tasks.stages import TASKS, counted, run_stage
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
    passed over. `stages` runs some of the six only, in their order. Returns `tasks.report.report`'s summary; raises
    PipelineError for wrong settings and for what stopped a whole stage. A run that lost a concept ends as `Incomplete`.
    """
    stage = "params"
    try:
        settings = load(Path(params), tuple(overrides))
        place = Workspace.at(Path(workspace), settings.concepts.folder)
        names, outcomes = concepts, []
        for stage in (name for name in TASKS if stages is None or name in stages):
            outcomes += (done := run_stage(stage, place, settings, names, force=force))
            names = [outcome["concept"] for outcome in done if outcome["state"] in ("done", "up-to-date")]
            if not names:
                break
    except Exception as error:
        if (told := explained(error, stage)) is None:
            raise
        return Failed(message=str(told), data=told)
    summary = report(place, outcomes)
    return Completed(name="Incomplete" if summary["reasons"] else "Completed", message=counted(summary["concepts"].values()), data=summary)
