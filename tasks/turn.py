"""One run at a time in a workspace, and an end for those that died without one.

`artifacts/run.lock` is held by the run that works; `artifacts/run.json` says who that is and which of Prefect's flow runs it is.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from filelock import FileLock
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import State
from prefect.states import Crashed

from ti_pipeline.files import write_json
from ti_pipeline.stages.turns import PATIENCE, take


@contextmanager
def turn(root: Path, say: Callable[[str], None], patience: float = PATIENCE) -> Iterator[None]:
    """Hold the workspace; wait for another run and say so. The kernel frees it when a holder dies, however it dies.

    A holder may take it again: the command that starts a flow holds it as the flow does. Raises PipelineError when the other run
    has not ended in `patience` seconds.
    """
    folder = root / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "run.lock", is_singleton=True)
    take(lock, str(root), lambda: _read(root).get("holder", "another run"), say, patience)
    try:
        if lock.lock_counter == 1:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            holder = f"the run of process {os.getpid()} on {socket.gethostname()} since {since}"
            write_json(_note(root), _read(root) | {"holder": holder})
        yield
    finally:
        lock.release()


@contextmanager
def as_flow_run(root: Path, flow_run: str, say: Callable[[str], None]) -> Iterator[None]:
    """The turn is this flow run's. One that had it and never ended is dead, since it does not hold it any more: Prefect is told."""
    with turn(root, say):
        if died := _read(root).get("flow_run"):
            _crash(UUID(died), say)
        write_json(_note(root), _read(root) | {"flow_run": flow_run})
        try:
            yield
        except Exception:
            _forget(root)
            raise
        _forget(root)  # after Ctrl-C or a kill it stays: the next run sees whether Prefect has heard of that


def _crash(died: UUID, say: Callable[[str], None]) -> None:
    """Tell Prefect of a flow run, those that it has started, and the tasks of them all, as far as it takes them for alive."""
    dead: State[Any] = Crashed(message="Its process ended without saying so.")
    try:
        with get_client(sync_client=True) as client:
            itself = FlowRunFilter(id=FlowRunFilterId(any_=[died]))
            below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[died]))
            runs = client.read_flow_runs(flow_run_filter=itself) + client.read_flow_runs(flow_run_filter=below)
            for task in _alive(client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs])))):
                client.set_task_run_state(task.id, dead, force=True)
            for run in _alive(runs):
                client.set_flow_run_state(run.id, dead, force=True)
                say(f"the flow run {run.name} is Crashed now: its process ended without saying so")
    except Exception as error:  # housekeeping for another run: whatever becomes of it, this one goes on
        say(f"the flow run {died} ended without saying so, and Prefect could not be told: {error}")


def _alive(runs: Iterable[Any]) -> list[Any]:
    return [run for run in runs if not run.state or not run.state.is_final()]


def _forget(root: Path) -> None:
    write_json(_note(root), {key: value for key, value in _read(root).items() if key != "flow_run"})


def _note(root: Path) -> Path:
    return root / "artifacts" / "run.json"


def _read(root: Path) -> dict[str, str]:
    try:
        note = json.loads(_note(root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
