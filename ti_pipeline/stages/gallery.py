"""The stage `gallery`: everything to pages; the overview is always over every concept of the workspace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.files import digest_file
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.reasons import read_all
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import (
    CANDIDATES,
    CONCEPTS,
    EMBEDDINGS,
    EVALUATION,
    GALLERIES,
    MANIFESTS,
    RANKINGS,
    Outcome,
    Workspace,
)  # fmt: skip


def _begin(run: Run) -> None:
    """What every page needs, so that none of them, which has the turn of its concept only, has to write it."""
    from ti_pipeline.gallery.identity import write_identity
    from ti_pipeline.gallery.render import write_static

    write_static(run.workspace.galleries)
    write_identity(run.workspace)


def _plan(run: Run, slug: str) -> Plan:
    from ti_pipeline.gallery.build import gallery_fingerprint, standing

    manifest = read_manifest(run.workspace, slug)
    wanted = gallery_fingerprint(run.workspace, manifest, run.params)
    return Plan(slug, wanted, standing(run.workspace, slug, wanted), manifest)


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    from ti_pipeline.gallery.build import build_page

    for plan in plans:
        page = build_page(run.workspace, plan.order, run.params, plan.fingerprint)
        yield Outcome("gallery", plan.concept, "done", path=str(page), digest=digest_file(page))


def _finish(run: Run) -> None:
    from ti_pipeline.gallery.overview import build_index
    from ti_pipeline.stages.table import STAGES

    known = [stage for stage in STAGES.values() if stage.output in (*GALLERY.reads, GALLERY.output)]
    build_index(run.workspace, run.params, validated(run.workspace), read_all(run.workspace, known))


def _page(workspace: Workspace, concept: str) -> Path:
    return workspace.galleries / concept / "page.json"


GALLERY = Stage(
    name="gallery",
    about="Build the pages.",
    output=GALLERIES,
    places=("{}",),
    last=_page,
    reads=(CONCEPTS, MANIFESTS, EMBEDDINGS, CANDIDATES, RANKINGS, EVALUATION),
    needs=(MANIFESTS, EMBEDDINGS, CANDIDATES, RANKINGS),
    sections=("gallery", "rank.best"),
    models=(),
    hours=0.25,
    plan=_plan,
    work=_work,
    begin=_begin,
    finish=_finish,
)
