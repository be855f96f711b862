"""Setups beside each other, over the same concepts and seeds: validated, learnt, measured, reported.

ti-pipeline run --compare                        here, with a server of its own
prefect deployment run compare-setups/compare   on a worker (prefect.yaml)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import State, flow

from flows.chain import Call, run_stages


@flow(name="compare-setups", persist_result=True, result_serializer="json")
def compare_setups(
    workspace: str | None = None,
    params: str | None = None,
    overrides: Sequence[str] = (),
    concepts: list[str] | None = None,
    force: bool = False,
    overlay: str | None = None,
) -> State[Any]:
    """Validate the image sets, then compare what the section `compare` names; what stands already is passed over.

    `overlay` is a file with other values of some keys, such as examples/comparison.yaml. All else is as in `train_concepts`: whose
    place the workspace is, what becomes of one that falls out, what is recorded, how it ends (`flows.chain.run_stages`).
    """
    call = Call(workspace, params, overrides, concepts, force, overlay)
    return run_stages(call, lambda settings: ("validate", "compare"), whole=False)
