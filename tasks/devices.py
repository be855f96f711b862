"""The stage `train` on several devices: a process for each, which takes the next share of the concepts when it is done with one."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from tasks.failures import DELAYS, can_pass
from tasks.stages import TASKS, limit
from ti_pipeline.models import share_processor
from ti_pipeline.params import Params
from ti_pipeline.workspace import Workspace

ROUNDS = 4  # shares for each device, so that none waits long for the slowest
FULL = 24  # concepts; smaller shares would leave places in a pack empty
_device: str | None = None  # that this process holds


def runner_for(devices: Sequence[str], taken: Path) -> TaskRunner[Any]:
    """Prefect's process pool, one process for each device; `taken` is an empty folder where they say which is whose."""
    return ProcessPoolTaskRunner(max_workers=len(devices), initializer=_take_device, initargs=(tuple(devices), str(taken)))


def _take_device(devices: Sequence[str], taken: str) -> None:
    """Hold the first device that no other process of the pool holds. Prefect pickles what it gives to them, so no queue can be."""
    global _device
    for place, device in enumerate(devices):
        try:
            (Path(taken) / str(place)).touch(exist_ok=False)
        except FileExistsError:
            continue
        _device = device
        if device == "cpu":
            share_processor(len(devices))
        return


def shares(groups: Sequence[Sequence[str]], devices: int) -> list[list[str]]:
    """Parts of the collection, the same for the same collection: a share that was killed goes on from its own checkpoint. Those of a
    group stay together."""
    count, parts = sum(map(len, groups)), list[list[str]]()
    size = max(ceil(count / (ROUNDS * devices)), min(FULL, ceil(count / devices)))
    for group in groups:
        if not parts or len(parts[-1]) + len(group) > size:
            parts.append([])
        parts[-1] += group
    return parts


@task(
    name="train-share", cache_policy=NO_CACHE, persist_result=True, result_serializer="json",
    retries=len(DELAYS), retry_delay_seconds=list(DELAYS), retry_condition_fn=can_pass,
)  # fmt: skip
def train_share(workspace: Workspace, params: Params, names: Sequence[str], force: bool) -> list[dict[str, Any]]:
    """`train` over some concepts on this process's own device."""
    generator = params.generator.model_copy(update={"device": _device or params.generator.device})
    return TASKS["train"].fn(workspace, params.model_copy(update={"generator": generator}), names, force=force)


def submit_share(workspace: Workspace, params: Params, names: Sequence[str], force: bool) -> Any:
    """The future of a share's outcomes, in the flow's task runner."""
    return train_share.with_options(timeout_seconds=limit("train", len(names))).submit(workspace, params, names, force)
