"""One Prefect task a stage: retries for what can pass, a timeout that grows with the collection, progress in the log."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import task_run

from tasks.failures import DELAYS, can_pass
from tasks.previews import previews_of
from tasks.progress import log_lines
from ti_pipeline.concepts.concept import discover
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import remove_withdrawn
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run, Stage
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Workspace


def task_of(stage: Stage) -> Task[..., list[dict[str, Any]]]:
    """The Prefect task of a stage, which gives its outcomes as JSON."""

    def work(workspace: Workspace, params: Params, names: Sequence[str] | None, *, force: bool) -> list[dict[str, Any]]:
        if (task_run.get_run_count() or 1) > 1:
            gc.collect()  # what an attempt that ran out of memory still holds; not at first: a signal that comes in here is lost
        log = get_run_logger()
        run = Run.over(workspace, params, names, force=force, report=log_lines(log.info))
        with previews_of(stage, run) as watched:
            outcomes = run_stage(stage, watched)
        if names is None and not stage.needs:
            remove_withdrawn(workspace, STAGES.values())  # the flow's other stages are given names, and remove nothing then
        for outcome in outcomes:
            if outcome.reason:
                log.warning("%s is %s: %s", outcome.concept, outcome.state, outcome.reason)
        log.info("%s: %s", stage.name, counted(outcome.state for outcome in outcomes))
        return [outcome.to_json() for outcome in outcomes]

    # Prefect keeps no cache: a stage knows by its fingerprints what stands already, also after a run outside of Prefect.
    options = task(
        name=stage.name, description=stage.about, cache_policy=NO_CACHE, persist_result=True, result_serializer="json",
        retries=len(DELAYS), retry_delay_seconds=list(DELAYS), retry_condition_fn=can_pass,
    )  # fmt: skip
    return options(work)


TASKS = {stage.name: task_of(stage) for stage in STAGES.values()}


def run_task(name: str, workspace: Workspace, params: Params, names: Sequence[str] | None, *, force: bool) -> list[dict[str, Any]]:
    """Run a stage over the named concepts, or over all; returns its outcomes as JSON. Raises what the stage lets through."""
    count = len(names) if names is not None else sum(len(found) for found in discover(workspace.concepts))
    return TASKS[name].with_options(timeout_seconds=limit(name, count))(workspace, params, names, force=force)


def check(names: Sequence[str], workspace: Workspace, params: Params) -> None:
    """Raises ParamsError for what one of the stages could not do when its turn comes."""
    run = Run.over(workspace, params)
    for name in names:
        if refuse := STAGES[name].check:
            refuse(run)


def limit(name: str, concepts: int) -> float:
    """Seconds after which a stage over so many concepts hangs."""
    return max(concepts, 1) * STAGES[name].hours * 3600


def counted(states: Iterable[str]) -> str:
    """`3 done, 1 quarantined`, in words for a log or a message."""
    counts = Counter(states)
    return ", ".join(f"{number} {state}" for state, number in counts.items()) or "nothing to do"
