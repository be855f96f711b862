"""The page over all concepts: those that have a page of their own, and those that have none, with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import BrokenOff, ConceptError
from ti_pipeline.files import write_text
from ti_pipeline.gallery.build import gallery_fingerprint, read_page, standing
from ti_pipeline.gallery.questionnaire import build_questionnaire
from ti_pipeline.gallery.render import render, write_static
from ti_pipeline.params import Params
from ti_pipeline.workspace import Workspace


def build_index(workspace: Workspace, params: Params, concepts: Iterable[str]) -> Path:
    """Write the page over `concepts` and the questionnaire, if an evaluation has pictures for one. Returns the first's path."""
    pages, waiting = [], []
    for slug in sorted(set(concepts)):
        page, state, reason = _state(workspace, params, slug)
        if page:
            pages.append(page | {"state": state, "reason": reason})
        else:
            waiting.append({"concept": slug, "state": state, "reason": reason})
    path = workspace.galleries / "index.html"
    try:
        write_static(workspace.galleries)
        questions = build_questionnaire(workspace, params, [page["concept"] for page in pages])
        data = {
            "page": "overview",
            "title": params.gallery.title,
            "concepts": {page["concept"]: page["pictures"] for page in pages},
        }
        owners = sorted({page["owner"] for page in pages if page["owner"]})
        write_text(
            path,
            render("index.html", title=params.gallery.title, pages=pages, waiting=waiting, owners=owners, questions=questions, data=data),
        )
    except OSError as error:
        raise BrokenOff(f"{path} cannot be written: {error}. Make room there, or see to the permissions.") from None
    return path


def _state(workspace: Workspace, params: Params, slug: str) -> tuple[dict[str, Any] | None, str, str]:
    """A concept's page, `ready`, `behind` (the page is of earlier files), `unfinished` or `quarantined`, and why."""
    page = read_page(workspace.galleries / slug / "page.json")
    try:
        manifest = read_manifest(workspace, slug)
        wanted = gallery_fingerprint(workspace, manifest, params)  # says which stage is missing
        if page is None:
            return None, "unfinished", f"There is no page yet. Run `ti-pipeline gallery {slug}`."
        return (page, "ready", "") if standing(workspace, slug, wanted) else (page, "behind", "the page is older than what it shows")
    except ConceptError as error:
        quarantined = error.reason.startswith("in quarantine: ")
        return page, "quarantined" if quarantined else "behind" if page else "unfinished", error.reason.removeprefix("in quarantine: ")
