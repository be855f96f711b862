"""From folders of pictures to ranked galleries.

ti-pipeline run                                  here, with a server of its own
prefect deployment run train-concepts/on-demand  on a worker (prefect.yaml)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from prefect import State, flow

from flows.chain import Call, run_stages
from tasks.stages import TASKS
from ti_pipeline.params import Params
from ti_pipeline.stages.table import STAGES, of_a_run

if TYPE_CHECKING:
    Stage = str
else:
    Stage = Literal[tuple(STAGES)]  # so that Prefect's pages offer them


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
    have a place for it. `stages` runs some of them only, in their order. One run at a time works in a workspace. It ends as
    `flows.chain.run_stages` says.
    """

    def chosen(settings: Params) -> list[str]:
        return [name for name in TASKS if name in (of_a_run(settings) if stages is None else stages)]

    return run_stages(Call(workspace, params, overrides, concepts, force), chosen)
