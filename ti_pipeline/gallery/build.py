"""The stage `gallery`: one page a concept, and one over all of them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.report import concept_path
from ti_pipeline.files import atomic, digest_file, write_json, write_text
from ti_pipeline.gallery.exhibit import read_numbers, read_walls, read_word
from ti_pipeline.gallery.pictures import hang_candidate, hang_references
from ti_pipeline.gallery.render import STYLE, design_digest, render
from ti_pipeline.params import Params
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

STAGE = "gallery"
VERSION = 1
COVERS = 4


def gallery_fingerprint(workspace: Workspace, manifest: Manifest, params: Params) -> str:
    """Over the digests of everything that the page shows and of the templates. Raises ConceptError for what is missing."""
    slug = manifest.slug
    inputs: dict[str, str | None] = {"manifest": manifest.digest, "design": design_digest()}
    for stage, path in (
        ("train", workspace.embedding(slug)),
        ("generate", workspace.candidate_table(slug)),
        ("rank", workspace.ranking(slug)),
    ):
        if not path.is_file():
            raise ConceptError(slug, f"{path} is not there. Run `ti-pipeline {stage} {slug}` first.")
        inputs[stage] = digest_file(path)
    evaluation = concept_path(workspace, slug)
    inputs["evaluate"] = digest_file(evaluation) if evaluation.is_file() else None
    return fingerprint(STAGE, VERSION, inputs, params.section("gallery") | {"best": params.rank.best})


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a page that carries the fingerprint and whose files are all there, else None."""
    folder = workspace.galleries / concept
    about = _read_page(folder / "page.json")
    if not about or about["fingerprint"] != wanted or not all((folder / name).is_file() for name in about["files"]):
        return None
    index = folder / "index.html"
    return Outcome(STAGE, concept, "up-to-date", path=str(index), digest=digest_file(index))


def build_page(workspace: Workspace, manifest: Manifest, params: Params, *, force: bool = False) -> Outcome:
    """Make a concept's page with all that it shows, or find that it stands. Raises ConceptError for what is wrong with this concept."""
    began = time.monotonic()
    slug, folder = manifest.slug, workspace.galleries / manifest.slug
    page, index = folder / "page.json", folder / "index.html"
    wanted = gallery_fingerprint(workspace, manifest, params)
    with _writable(folder, slug):
        _write_style(workspace)
        if not force and (outcome := standing(workspace, slug, wanted)):
            return outcome
        files, about = _write_page(workspace, manifest, params, folder)
        write_json(page, about | {"fingerprint": wanted, "concept": slug, "files": sorted(files)})
        _sweep(folder, files | {page.name})
    return Outcome(STAGE, slug, "done", time.monotonic() - began, path=str(index), digest=digest_file(index))


def build_index(workspace: Workspace, params: Params, concepts: Iterable[str]) -> Path:
    """Write the page over the pages of `concepts`; those without one are passed over. Returns its path."""
    pages = [page for slug in sorted(set(concepts)) if (page := _read_page(workspace.galleries / slug / "page.json"))]
    path = workspace.galleries / "index.html"
    try:
        _write_style(workspace)
        write_text(path, render("index.html", title=params.gallery.title, pages=pages))
    except OSError as error:
        raise ParamsError(f"{path} cannot be written: {error}. Make room there, or see to the permissions.") from None
    return path


def _write_page(workspace: Workspace, manifest: Manifest, params: Params, folder: Path) -> tuple[set[str], dict[str, Any]]:
    """Pictures, embedding and, after them, the page; returns the files that it needs and what the overview says of it."""
    slug, section = manifest.slug, params.gallery
    walls = read_walls(workspace, slug, params.rank.best)
    numbers = read_numbers(workspace, manifest)
    references = hang_references(manifest, folder, section.thumbnail)
    source = workspace.candidates(slug)
    hung = {
        (wall.index, shot.candidate): hang_candidate(
            source / shot.file, folder, slug, shot.digest, section.thumbnail, f"{shot.ordinal} of {len(wall.shots)} for: {wall.prompt}"
        )
        for wall in walls for shot in wall.shots
    }  # fmt: skip
    word, embedding = f"{slug}.safetensors", workspace.embedding(slug)
    with atomic(folder / word) as temporary:
        shutil.copyfile(embedding, temporary)
    learnt = read_word(embedding, slug)
    text = render(
        "concept.html", title=section.title, concept=manifest, walls=walls, hung=hung, references=references, numbers=numbers,
        word=word, vectors=learnt.vectors, initializer=learnt.provenance.get("initializer") or manifest.initializer or "",
        steps=learnt.provenance.get("steps", ""), generator=learnt.provenance.get("generator", ""),
    )  # fmt: skip
    write_text(folder / "index.html", text)
    files = {"index.html", word} | {name for picture in (*references, *hung.values()) for name in (picture.shown, picture.opens)}
    covers = [hung[wall.index, wall.shots[0].candidate] for wall in walls[:COVERS]]
    about = {
        "token": manifest.token, "kind": manifest.kind, "briefs": len(walls), "candidates": len(hung),
        "gain_percent": numbers.gain["value"] if numbers and numbers.gain else None,
        "covers": [{"shown": c.shown, "width": c.width, "height": c.height} for c in covers],
        "references": [{"shown": r.shown, "width": r.width, "height": r.height} for r in references[:COVERS]],
    }  # fmt: skip
    return files, about


@contextmanager
def _writable(folder: Path, concept: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConceptError(concept, f"{folder} cannot be written: {error}. Make room there, or see to the permissions.") from None


def _write_style(workspace: Workspace) -> None:
    target = workspace.galleries / STYLE.name  # no folder of its own: any name of a folder may be that of a concept
    if not target.is_file() or target.read_bytes() != STYLE.read_bytes():
        write_text(target, STYLE.read_text(encoding="utf-8"))


def _read_page(path: Path) -> dict[str, Any] | None:
    """What a finished page says about itself; None when there is none."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and {"fingerprint", "files", "covers"} <= about.keys() else None


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier page needed, after the new one is written."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in keep:
            path.unlink(missing_ok=True)
