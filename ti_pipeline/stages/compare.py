"""The stage `compare`: setups beside each other, over the same concepts and seeds; the report is always over every concept.

It is no part of a run that nobody has asked it of: it takes long, and nothing else depends on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Sequence

from ti_pipeline.comparison.arms import arms
from ti_pipeline.comparison.cells import Digests, Files, Wanted, wanted, with_first
from ti_pipeline.comparison.state import comparison_fingerprint, metrics_path, outcome, stands
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_value
from ti_pipeline.stages.collection import is_there, validated
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import COMPARING, COMPARISON, CONCEPTS, MANIFESTS, Outcome, Workspace


def _digests(run: Run) -> Digests:
    from ti_pipeline.generators.family import other_density, other_than_usual

    models, settings = run.models, run.params.generator
    encoders, density = other_than_usual(models.source, settings.encoders), other_density(models.source, settings.density)
    return Digests(models.source.digest, models.ranker_digest, models.judge_digest, encoders, density)


def _wanted(run: Run, slug: str) -> Wanted:
    manifest = with_first(read_manifest(run.workspace, slug), run.params.compare.pictures)
    if not arms(run.params):
        return Wanted(manifest, [])
    return wanted(run.params, manifest, run.once(_digests))


def _check(run: Run) -> None:
    """Raises ParamsError for a setup that the generator cannot learn by."""
    from ti_pipeline.inversion.objective import check_learning

    for arm in arms(run.params):
        if not arm.caption:
            try:
                check_learning(arm.train, run.models.source)
            except ParamsError as error:
                raise ParamsError(f"compare: {arm.name!r} cannot be learnt: {error}") from None


def _plan(run: Run, slug: str) -> Plan:
    order, files, report = _wanted(run, slug), Files(run.workspace), comparison_fingerprint(run.params)
    fingerprint = digest_value([report, [cell.digest for cell in order.cells]])
    standing = stands(run.workspace, report) and all(files.stands(cell) for cell in order.cells)
    return Plan(slug, fingerprint, outcome(files, order, "up-to-date") if standing else None, order)


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    from ti_pipeline.comparison.work import Work

    yield from Work(run, [plan.order for plan in plans]).outcomes()


def _finish(run: Run) -> None:
    from ti_pipeline.comparison.summary import nothing, summarise

    if not arms(run.params):
        nothing(run.workspace)
    else:
        summarise(run, [order for slug in validated(run.workspace) if (order := _order(run, slug))])


def _order(run: Run, slug: str) -> Wanted | None:
    try:
        return _wanted(run, slug)
    except ConceptError:
        return None


def _withdraw(workspace: Workspace, known: Collection[str]) -> None:
    """Words and cells of concepts that are gone."""
    for folder in (workspace.artifacts / COMPARING).glob("*/*"):
        if folder.is_dir() and folder.name not in known and not is_there(workspace, folder.name):
            shutil.rmtree(folder)


COMPARE = Stage(
    name="compare",
    about="Compare setups over the same concepts and seeds (`compare` in params.yaml).",
    output=COMPARISON,
    places=("cells/{}",),
    last=lambda workspace, _: metrics_path(workspace),
    reads=(CONCEPTS, MANIFESTS),
    needs=(MANIFESTS,),
    sections=("train", "compare", "evaluate.prompts"),
    models=("generator", "ranker", "judge"),
    hours=12,
    plan=_plan,
    work=_work,
    together=True,
    check=_check,
    finish=_finish,
    scratch=(COMPARING,),
    withdraw=_withdraw,
    asked=lambda params: bool(arms(params)),
)
