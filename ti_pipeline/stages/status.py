"""What is up to date, stale, missing or quarantined, without doing any of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.params import Params
from ti_pipeline.stages.reasons import Reason, read_all
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES, always, with_something_to_do
from ti_pipeline.stages.validate import discovered
from ti_pipeline.workspace import Workspace


def survey(workspace: Workspace, params: Params) -> list[dict]:
    """One row a concept: `{"concept", "stages": {stage: state}, "reason"}`; a state is up-to-date, stale, missing, failed or quarantined.
    A stage of which the params ask nothing is in no row.

    A stage behind one that is not up to date has that one's state: its own inputs are about to change. `failed` is one that is not up
    to date and failed when it was last tried; of a concept that is up to date the reason says what was left out.
    """
    run, kept = Run.over(workspace, params), read_all(workspace, STAGES.values())
    rows = []
    for slug, concept in sorted(run.once(discovered).items()):
        if isinstance(concept, ConceptError):
            rows.append({"concept": slug, "stages": dict.fromkeys(with_something_to_do(params), "quarantined"), "reason": concept.reason})
        else:
            rows.append(_row(run, slug, kept.get(slug, [])))
    return rows


def _row(run: Run, slug: str, kept: list[Reason]) -> dict:
    states, reason = _along(run, slug, kept, always())
    for stage in (STAGES[name] for name in with_something_to_do(run.params) if name not in states):
        way = [name for name in states if STAGES[name].output in stage.reads]  # it waits for nothing else
        own, why = _along(run, slug, kept, [*way, stage.name])
        reason = why if set(states.values()) == {"up-to-date"} else reason
        states[stage.name] = own[stage.name]
    return {"concept": slug, "stages": states, "reason": reason}


def _along(run: Run, slug: str, kept: list[Reason], stages: Sequence[str]) -> tuple[dict[str, str], str]:
    """The states of stages that each build on those before, and the reason of the first that is not up to date."""
    states: dict[str, str] = {}
    reason = "; ".join(str(each) for each in kept if each.ok)
    try:
        for stage, state in _states(run, slug, stages):
            states[stage] = state
            if state != "up-to-date":
                reason = f"{stage} has not run yet" if state == "missing" else f"{stage}: pictures, params or models have changed"
                if lost := next((each for each in kept if each.stage == stage and not each.ok), None):
                    states[stage], reason = lost.state, str(lost)
                break
    except ConceptError as error:
        reason = error.reason
        states[next(stage for stage in stages if stage not in states)] = "quarantined" if error.state == "quarantined" else "missing"
    last = list(states.values())[-1]
    return {stage: states.get(stage, last) for stage in stages}, reason


def _states(run: Run, slug: str, stages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The states of the stages, up to the first that is not up to date at least. Raises ConceptError."""
    for stage in (STAGES[name] for name in stages):
        if stage.needs:
            read_manifest(run.workspace, slug)  # one in quarantine misses nothing
        if not stage.last(run.workspace, slug).is_file():
            yield stage.name, "missing"
        else:
            yield stage.name, "up-to-date" if stage.plan(run, slug).stands else "stale"
