"""One Prefect task a stage: retries for what can pass, a timeout that grows with the collection, progress in the log."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.failures import DELAYS, can_pass
from tasks.progress import log_lines
from ti_pipeline import stages
from ti_pipeline.collection import remove_withdrawn
from ti_pipeline.concepts.concept import discover
from ti_pipeline.params import Params
from ti_pipeline.workspace import Workspace

# Hours a concept, on the slowest device that makes sense: this finds a device that hangs, not one that is slow.
HOURS = {"validate": 0.25, "train": 12, "generate": 12, "rank": 1, "evaluate": 12, "gallery": 0.25}


def _task(name: str) -> Task:
    def stage(workspace: Workspace, params: Params, names: Sequence[str] | None, *, force: bool) -> list[dict[str, Any]]:
        gc.collect()  # what an attempt that ran out of memory still holds
        log = get_run_logger()
        outcomes = stages.STAGES[name](workspace, params, names, force=force, progress=log_lines(log.info))
        if name == "validate" and names is None:
            remove_withdrawn(workspace)  # the flow's other stages are given names, and remove nothing then
        for outcome in outcomes:
            if outcome.reason:
                log.warning("%s is %s: %s", outcome.concept, outcome.state, outcome.reason)
        log.info("%s: %s", name, counted(outcome.state for outcome in outcomes))
        return [outcome.to_json() for outcome in outcomes]

    # Prefect keeps no cache: a stage knows by its fingerprints what stands already, also after a run outside of Prefect.
    return task(
        stage, name=name, description=stages.STAGES[name].__doc__, cache_policy=NO_CACHE, persist_result=True, result_serializer="json",
        retries=len(DELAYS), retry_delay_seconds=list(DELAYS), retry_condition_fn=can_pass,
    )  # fmt: skip


TASKS = {name: _task(name) for name in stages.STAGES}


def run_stage(name: str, workspace: Workspace, params: Params, names: Sequence[str] | None, *, force: bool) -> list[dict[str, Any]]:
    """Run a stage over the named concepts, or over all; returns its outcomes as JSON. Raises what the stage lets through."""
    count = len(names) if names is not None else sum(map(len, discover(workspace.concepts)))
    limited = TASKS[name].with_options(timeout_seconds=max(count, 1) * HOURS[name] * 3600)
    return limited(workspace, params, names, force=force)


def counted(states: Iterable[str]) -> str:
    """`3 done, 1 quarantined`, in words for a log or a message."""
    counts = Counter(states)
    return ", ".join(f"{number} {state}" for state, number in counts.items()) or "nothing to do"
