"""What running a stage is, whichever it is. A Prefect task and the command that `dvc.yaml` names call the same function.

One bad concept is an Outcome with its reason and never stops the others. What no concept is to blame for goes through:
ParamsError, an operating system's error, a device that is out of memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from ti_pipeline.errors import BrokenOff, ConceptError, NotYet, ParamsError, PipelineError, out_of_memory
from ti_pipeline.stages import reasons
from ti_pipeline.stages.collection import remove_withdrawn
from ti_pipeline.stages.leftovers import sweep
from ti_pipeline.stages.stage import Lost, Plan, Progress, Run, Stage
from ti_pipeline.stages.turns import OVERVIEW, turn
from ti_pipeline.workspace import MANIFESTS, Outcome

PER_CONCEPT = 1000  # a concept's share of the stage's progress
log = logging.getLogger(__name__)


def run_stage(stage: Stage, run: Run) -> list[Outcome]:
    """Do a stage for the run's concepts, in turns with whoever else works there; what stands is passed over unless the run forces it.

    Returns what became of each, sorted by concept; their reasons are kept. Raises what no concept is to blame for.
    """
    slugs = (stage.concepts or _validated)(run)
    if stage.check:
        stage.check(run)
    run.workspace.choices.mkdir(parents=True, exist_ok=True)  # nobody may have chosen yet, and DVC wants every input to be there
    sweep(run.workspace, stage, run.names)
    if run.names is None:
        remove_withdrawn(run.workspace, [stage])
    if stage.begin:
        with turn(run.workspace, stage.name, [OVERVIEW]):
            stage.begin(run)
    if stage.together:
        with turn(run.workspace, stage.name, [*slugs, *(stage.holds(run) if stage.holds else ())]):
            outcomes = _together(stage, run, slugs)
    else:
        outcomes = [_alone(stage, replace(run, report=_part(run.report, i, len(slugs), slug)), slug) for i, slug in enumerate(slugs)]
    if stage.finish:
        with turn(run.workspace, stage.name, [OVERVIEW]):
            stage.finish(run)
    return outcomes


def _validated(run: Run) -> list[str]:
    if slugs := run.chosen:
        return slugs
    raise ParamsError(f"{run.workspace.artifacts / MANIFESTS} holds no manifest. Run `ti-pipeline validate` first.")


def _part(report: Progress, index: int, count: int, slug: str) -> Progress:
    """The progress of one concept as a part of the stage's."""
    return lambda done, total, text: report(
        int((index + done / max(total, 1)) * PER_CONCEPT), count * PER_CONCEPT, f"{slug}: {text}"
    )  # fmt: skip


def _alone(stage: Stage, run: Run, slug: str) -> Outcome:
    began = time.monotonic()
    run.report(0, 1, stage.name)
    with turn(run.workspace, stage.name, [slug]):
        try:
            plan = _plan(stage, run, slug)
            if plan.stands and not run.force:
                outcome = _kept(stage, run, plan.stands)
            else:
                (done,) = stage.work(run, [plan])
                if isinstance(done, Lost):
                    raise done.error
                outcome = _kept(stage, run, replace(done, seconds=time.monotonic() - began))
        except Exception as error:
            outcome = _lost(stage, run, Lost(slug, error, time.monotonic() - began))
    run.report(1, 1, stage.name)
    return outcome


def _together(stage: Stage, run: Run, slugs: Sequence[str]) -> list[Outcome]:
    """Concepts that are worked on have each its part of the seconds that all of them took."""
    outcomes: dict[str, Outcome] = {}
    todo: list[Plan] = []
    standing: list[Plan] = []
    for slug in slugs:
        try:
            plan = _plan(stage, run, slug)
            if plan.stands and not plan.unfinished and not run.force:
                outcomes[slug] = _kept(stage, run, plan.stands)
                standing.append(plan)
            else:
                todo.append(plan)
        except Exception as error:
            outcomes[slug] = _lost(stage, run, Lost(slug, error))
    if todo:
        began, worked = time.monotonic(), {}
        for done in stage.work(replace(run, standing=tuple(standing)), todo):
            worked[done.concept] = _lost(stage, run, done) if isinstance(done, Lost) else _kept(stage, run, done)
        took, whole = time.monotonic() - began, sum(outcome.seconds for outcome in worked.values())
        for slug, outcome in worked.items():
            outcomes[slug] = replace(outcome, seconds=took * (outcome.seconds / whole if whole else 1 / len(worked)))
    return [outcomes[slug] for slug in sorted(outcomes)]


def _plan(stage: Stage, run: Run, slug: str) -> Plan:
    """Raises NotYet for a concept that fell out of a stage that this one needs."""
    if lost := reasons.before(run.workspace, stage.needs, slug):
        if lost.state == "quarantined":
            raise NotYet(slug, f"in quarantine: {lost.reason}", "quarantined")
        raise NotYet(slug, str(lost))
    return stage.plan(run, slug)


def _kept(stage: Stage, run: Run, outcome: Outcome) -> Outcome:
    if stage.remark and outcome.ok:
        outcome = stage.remark(run, outcome)
    reasons.keep(run.workspace, stage.output, outcome)
    return outcome


def _lost(stage: Stage, run: Run, lost: Lost) -> Outcome:
    """The outcome of a concept that fell out, its reason kept; raises what no concept is to blame for."""
    error = lost.error
    if isinstance(error, (ParamsError, BrokenOff, OSError)) or out_of_memory(error):
        raise error
    if isinstance(error, NotYet):
        reasons.forget(run.workspace, stage.output, lost.concept)  # what it was is of other inputs
        return Outcome(stage.name, lost.concept, error.state, lost.seconds, error.reason)
    if isinstance(error, ConceptError):
        outcome = Outcome(stage.name, lost.concept, error.state, lost.seconds, error.reason)
    elif isinstance(error, PipelineError):
        outcome = Outcome(stage.name, lost.concept, "failed", lost.seconds, str(error))
    else:
        log.error("%s of %s", stage.name, lost.concept, exc_info=error)
        why = f"{type(error).__name__}: {error}. The log has the details."
        outcome = Outcome(stage.name, lost.concept, "failed", lost.seconds, why)
    reasons.keep(run.workspace, stage.output, outcome)
    return outcome
