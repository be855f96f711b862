"""The tasks around the stages: the inbox before them, the record and the galleries for readers behind them.

None of them takes the others or the run with it: what goes wrong is a trouble in the summary, and the next run mends it. A run that
was not meant to be recorded (other settings than params.yaml, some concepts only) is none: its record has a `reason` or `left_out`,
and its gallery is withheld.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.failures import DELAYS, shown
from ti_pipeline.concepts.texts import visible
from ti_pipeline.errors import PipelineError
from ti_pipeline.params import Params
from ti_pipeline.versioning.hub import upload
from ti_pipeline.versioning.inbox import bring_in
from ti_pipeline.versioning.publish import publish as publish_galleries
from ti_pipeline.versioning.record import record as record_run
from ti_pipeline.workspace import Workspace


def storage_can_pass(task: Any, run: Any, state: Any) -> bool:
    """Prefect's `retry_condition_fn`: whether the storage may answer in a minute."""
    return bool(getattr(state.data, "passing", False))


_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE, "persist_result": True, "result_serializer": "json",
    "retries": len(DELAYS), "retry_delay_seconds": list(DELAYS), "retry_condition_fn": storage_can_pass,
}  # fmt: skip


@task(name="inbox", **_OPTIONS)
def inbox(workspace: Workspace, params: Params) -> list[dict[str, Any]]:
    """New and changed sets from the inbox to the workspace."""
    log = get_run_logger()
    arrivals = bring_in(workspace, params, log.info)
    for arrival in arrivals:
        if arrival.reason:
            log.warning("inbox: %s", visible(f"{arrival.set} is {arrival.state}: {arrival.reason}"))
    return [arrival.to_json() for arrival in arrivals]


@task(name="versioning", **_OPTIONS)
def versioning(workspace: Workspace, params: Params, lost: list[str]) -> dict[str, Any]:
    """What the run has changed to DVC, the remote and Git."""
    log = get_run_logger()
    done = record_run(workspace, params, log.info, lost=lost)
    log.info("%s", done)
    return done.to_json() | {"said": str(done)}


@task(name="publish", **_OPTIONS)
def publish(workspace: Workspace, params: Params, began: datetime) -> dict[str, Any]:
    """Galleries with the words in them to readers, and a link to them."""
    log = get_run_logger()
    done = publish_galleries(workspace, params, log.info, began)
    log.info("%s", done)
    if done.state in ("published", "up-to-date"):
        with shown():
            create_markdown_artifact(f"[Galleries and words]({done.url}), build `{done.build}`", key="published")
    return done.to_json() | {"said": str(done)}


@task(name="hub", **_OPTIONS)
def hub(workspace: Workspace, params: Params) -> list[dict[str, Any]]:
    """The words that `publish.hub` names to their repositories."""
    log = get_run_logger()
    words = upload(workspace, params, log.info)
    for word in words:
        (log.info if word.ok else log.warning)("hub: %s", word)
    return [word.to_json() for word in words]


def take_in(workspace: Workspace, params: Params) -> dict[str, Any]:
    """The run's first step; returns its part of the summary."""
    return _guarded("inbox", lambda: inbox(workspace, params)) if params.inbox.bucket else {}


def keep(workspace: Workspace, params: Params, summary: Mapping[str, Any], began: datetime | None) -> dict[str, Any]:
    """The run's last steps; returns their part of the summary. Without `began` nothing is published."""
    recorded = _guarded("versions", lambda: versioning(workspace, params, sorted(summary["reasons"])))
    if not summary["gallery"] or not began:
        return merged(recorded)
    published = _guarded("published", lambda: publish(workspace, params, began))
    uploaded = _guarded("hub", lambda: hub(workspace, params)) if params.publish.hub else {}
    parts = {"published": published.get("published", {})} | {f"hub: {word['concept']}": word for word in uploaded.get("hub", ())}
    withheld = {step: part["reason"] for step, part in parts.items() if part.get("state") == "withheld"}
    done = recorded.get("versions", {})
    trial = done.get("reason") or done.get("left_out")  # the run was not meant for everybody
    return merged(recorded, published, uploaded, {} if trial else {"troubles": withheld})


def merged(*parts: Mapping[str, Any]) -> dict[str, Any]:
    """Parts of the summary in one; `notes` are lines for people, `troubles` {step: what to do}."""
    whole = {key: value for part in parts for key, value in part.items() if key not in ("notes", "troubles")}
    whole["notes"] = [note for part in parts for note in part.get("notes", [])]
    whole["troubles"] = {step: why for part in parts for step, why in part.get("troubles", {}).items()}
    return whole


def _guarded(step: str, work: Callable[[], Any]) -> dict[str, Any]:
    try:
        done = work()
    except (PipelineError, OSError) as error:
        why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        get_run_logger().error("%s: %s", step, visible(why))
        return {"notes": [f"{step}: {why}"], "troubles": {step: why}}
    if isinstance(done, dict):
        return {step: done, "notes": [done["said"]]}
    counts = Counter(each["state"] for each in done)
    note = f"{step}: {', '.join(f'{number} {state}' for state, number in counts.items()) or 'empty'}"
    failed = {f"{step}: {each.get('set') or each['concept']}": each["reason"] for each in done if each["state"] == "failed"}
    return {step: done, "notes": [note, *(f"{name}: {why}" for name, why in failed.items())], "troubles": failed}
