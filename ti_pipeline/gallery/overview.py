"""The page over all concepts: what needs fixing, the pages that there are, and what has not been made yet."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import BrokenOff, ConceptError
from ti_pipeline.files import write_text
from ti_pipeline.gallery.build import gallery_fingerprint, read_page, standing
from ti_pipeline.gallery.needs import read_needs
from ti_pipeline.gallery.questionnaire import build_questionnaire
from ti_pipeline.gallery.render import render
from ti_pipeline.params import Params
from ti_pipeline.stages.reasons import Reason
from ti_pipeline.workspace import Workspace


def build_index(workspace: Workspace, params: Params, concepts: Iterable[str], reasons: dict[str, list[Reason]]) -> Path:
    """Write the page over `concepts` and the questionnaire, if an evaluation has pictures for one. Returns the first's path.

    `reasons` are why concepts fell out of a stage, and what was left out of others.
    """
    path, title = workspace.galleries / "index.html", params.gallery.title
    try:
        needs = read_needs(workspace, params, reasons)
        fallen = {need.concept for need in needs}
        pages, coming = [], []
        for slug in sorted(set(concepts)):
            page = read_page(workspace.galleries / slug / "page.json")
            if page:
                left_out = [reason.reason for reason in reasons.get(slug, ()) if reason.ok]
                state = "ready" if _is_ready(workspace, params, slug) else "out of date"
                pages.append(page | {"state": state, "left_out": left_out, "learnt": _learnt(workspace, slug)})
            elif slug not in fallen:
                coming.append(slug)
        questions = build_questionnaire(workspace, params, [page["concept"] for page in pages])
        data = {"page": "overview", "title": title, "concepts": {page["concept"]: page["pictures"] for page in pages}}
        about: dict[str, Any] = {"owners": sorted({page["owner"] for page in pages if page["owner"]}), "questions": questions, "data": data}
        write_text(path, render("index.html", title=title, needs=needs, pages=pages, coming=coming, **about))
    except OSError as error:
        raise BrokenOff(f"{path} cannot be written: {error}. Make room there, or check the permissions.") from None
    return path


def _learnt(workspace: Workspace, slug: str) -> str:
    """The day on which the word came here. It is in no page, which is the same whenever it is made."""
    embedding = workspace.embedding(slug)
    return datetime.fromtimestamp(embedding.stat().st_mtime, UTC).strftime("%Y-%m-%d") if embedding.is_file() else ""


def _is_ready(workspace: Workspace, params: Params, slug: str) -> bool:
    """Whether a concept's page shows what there is by now."""
    try:
        wanted = gallery_fingerprint(workspace, read_manifest(workspace, slug), params)
    except ConceptError:
        return False
    return standing(workspace, slug, wanted) is not None
