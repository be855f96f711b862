"""One page a concept; `ti_pipeline.gallery.overview` writes those over all of them."""

from __future__ import annotations

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, NotYet
from ti_pipeline.evaluation.report import concept_path
from ti_pipeline.files import digest_file, write_json, write_text
from ti_pipeline.gallery.exhibit import Shot, Versus, Wall, read_numbers, read_versus, read_walls
from ti_pipeline.gallery.learning import hang_frames, read_curve
from ti_pipeline.gallery.pictures import Hung, hang_candidate, hang_references
from ti_pipeline.gallery.render import design_digest, render
from ti_pipeline.gallery.take_away import carrier, hang_word
from ti_pipeline.params import Params
from ti_pipeline.words.export import export_of
from ti_pipeline.words.headers import word_fingerprint
from ti_pipeline.words.names import names_for
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

STAGE = "gallery"
VERSION = 4
COVERS = 4
WAITING = 4  # threads a core: most of their time goes by until the disk has a file
SHARP = 2  # a thumbnail's pixels for each on the page
_GUIDANCE = re.compile(r"((?:Distilled )?CFG [Ss]cale): ([^,]+)")


def gallery_fingerprint(workspace: Workspace, manifest: Manifest, params: Params) -> str:
    """Over the digests of everything that the page shows and of the templates. Raises ConceptError for what is missing."""
    slug = manifest.slug
    inputs: dict[str, Any] = {"manifest": manifest.digest, "design": design_digest()}
    for stage, path in (
        ("train", workspace.embedding(slug)),
        ("generate", workspace.candidate_table(slug)),
        ("rank", workspace.ranking(slug)),
    ):
        if not path.is_file():
            raise NotYet(slug, f"{path} is not there. Run `ti-pipeline {stage} {slug}` first.")
        inputs[stage] = digest_file(path)
    inputs |= {path.name: digest_file(path) for path in (workspace.curve(slug), workspace.strip(slug)) if path.is_file()}
    evaluation = concept_path(workspace, slug)
    inputs["evaluate"] = digest_file(evaluation) if evaluation.is_file() else None
    for name, folder in params.gallery.against.items():
        other = Workspace.at(workspace.root / folder, ".")
        inputs[f"against {name}"] = [digest_file(p) for p in (other.candidate_table(slug), other.embedding(slug)) if p.is_file()]
    return fingerprint(STAGE, VERSION, inputs, params.section("gallery") | {"best": params.rank.best})


def standing(workspace: Workspace, concept: str, wanted: str) -> Outcome | None:
    """The outcome of a page that carries the fingerprint and whose files are all there, else None."""
    folder = workspace.galleries / concept
    about = read_page(folder / "page.json")
    if not about or about["fingerprint"] != wanted or not set(about["files"]) <= _files(folder):
        return None
    index = folder / "index.html"
    return Outcome(STAGE, concept, "up-to-date", path=str(index), digest=digest_file(index))


def _files(folder: Path) -> set[str]:
    """Names relative to the folder; one look at each of its few subfolders instead of one at each file."""
    found = set()
    for place, _, names in os.walk(folder):
        before = Path(place).relative_to(folder).as_posix()
        found |= {name if before == "." else f"{before}/{name}" for name in names}
    return found


def read_page(path: Path) -> dict[str, Any] | None:
    """What a finished page says about itself; None when there is none."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and {"fingerprint", "files", "covers"} <= about.keys() else None


def build_page(workspace: Workspace, manifest: Manifest, params: Params, wanted: str) -> Path:
    """Make a concept's page with all that it shows, under the fingerprint `wanted`; returns its path.

    Raises ConceptError for what is wrong with this concept.
    """
    folder = workspace.galleries / manifest.slug
    page = folder / "page.json"
    try:
        files, about = _write_page(workspace, manifest, params, folder)
        write_json(page, about | {"fingerprint": wanted, "concept": manifest.slug, "files": sorted(files)})
        _sweep(folder, files | {page.name})
    except OSError as error:
        reason = f"{folder} cannot be written: {error}. Make room there, or check the permissions."
        raise ConceptError(manifest.slug, reason) from None
    return folder / "index.html"


def _write_page(workspace: Workspace, manifest: Manifest, params: Params, folder: Path) -> tuple[set[str], dict[str, Any]]:
    """Pictures, the word and, after them, the page; returns the files that it needs and what the overview says of it."""
    slug, section = manifest.slug, params.gallery
    edge = SHARP * section.thumbnail
    walls = read_walls(workspace, slug, params.rank.best)
    numbers = read_numbers(workspace, manifest)
    found = [read_versus(workspace, slug, name, path, walls) for name, path in section.against.items()]
    versus = [one for one in found if one]
    references = hang_references(manifest, folder, edge)
    hung, older = _hang(workspace, slug, walls, versus, folder, edge)
    embedding = workspace.embedding(slug)
    word, version = export_of(workspace, manifest, names_for([slug])[slug]), digest_file(embedding)[:8]
    offers = hang_word(word, folder)
    curve = read_curve(workspace, slug, word_fingerprint(embedding))
    frames = hang_frames(workspace, slug, folder, edge)
    initializer = word.about.get("initializer") or manifest.initializer or ""
    pictures = {shot.id: _data(wall, shot, hung[shot.id]) for wall in walls for shot in wall.shots}
    data = {
        "page": "concept", "concept": slug, "token": manifest.token, "title": section.title, "version": version,
        "word": {"name": word.name, "takes": {offer.tool.name: offer.takes for offer in offers}},
        "briefs": {wall.index: wall.prompt for wall in walls}, "pictures": pictures,
        "references": [{"shown": r.shown, "opens": r.opens, "width": r.full_width, "height": r.full_height, "label": r.label}
                       for r in references],
        "versus": [
            {"name": one.name, "version": one.version, "pairs": {pair.new.id: older[pair.digest].opens for pair in one.pairs}}
            for one in versus
        ],
    }  # fmt: skip
    text = render(
        "concept.html", title=section.title, concept=manifest, walls=walls, hung=hung, older=older, versus=versus, references=references,
        numbers=numbers, word=word, offers=offers, initializer=initializer, version=version, data=data, small=section.thumbnail,
        curve=curve, frames=frames,
    )  # fmt: skip
    write_text(folder / "index.html", text)
    places = {place for offer in offers for place in offer.files.values()}
    files = {"index.html", *places, *map(carrier, places)}
    for picture in (*references, *hung.values(), *older.values(), *(frame.hung for frame in frames)):
        files |= {name for name in (picture.shown, picture.opens, picture.carrier) if name}
    about = {
        "token": manifest.token, "kind": manifest.kind, "owner": manifest.owner or "", "license": manifest.license or "",
        "briefs": len(walls), "candidates": len(pictures), "initializer": initializer, "version": version,
        "gain_percent": numbers.gain["value"] if numbers and numbers.gain else None,
        "prompts": [wall.prompt for wall in walls],
        "pictures": list(pictures),
        "word": [offer.to_json() for offer in offers],
        "covers": [_cover(hung[wall.shots[0].id]) for wall in walls[:COVERS]],
        "references": [_cover(r) for r in references[:COVERS]],
    }  # fmt: skip
    return files, about


def _hang(
    workspace: Workspace, slug: str, walls: list[Wall], versus: list[Versus], folder: Path, edge: int
) -> tuple[dict[str, Hung], dict[str, Hung]]:
    """Every candidate by its id, and those of other workspaces by their digest. Decoding and encoding leave the interpreter free."""
    source = workspace.candidates(slug)
    with ThreadPoolExecutor(WAITING * (os.cpu_count() or 1)) as pool:
        new = {
            shot.id: pool.submit(
                hang_candidate, source / shot.file, folder, slug, shot.digest, edge,
                f"{shot.ordinal} of {len(wall.shots)} for: {wall.prompt}",
            )
            for wall in walls for shot in wall.shots
        }  # fmt: skip
        old = {
            pair.digest: pool.submit(
                hang_candidate, one.folder / pair.file, folder, slug, pair.digest, edge, f"{one.name}: {pair.new.prompt}"
            )
            for one in versus
            for pair in one.pairs
        }
        return {key: done.result() for key, done in new.items()}, {key: done.result() for key, done in old.items()}


def _data(wall: Wall, shot: Shot, hung: Hung) -> dict[str, Any]:
    """What the script knows of a picture."""
    return {
        "brief": wall.index, "place": shot.place, "of": len(wall.shots), "best": shot.best, "stack": shot.stack,
        "candidate": shot.candidate, "words": shot.words, "reason": shot.reason,
        "likeness": round(shot.likeness, 4), "faithfulness": round(shot.faithfulness, 4), "prompt": shot.prompt,
        "negative": shot.negative_prompt, "seed": shot.seed, "solver": shot.solver, "steps": shot.steps,
        "guidance": _guidance(hung.parameters), "generator": shot.generator, "label": hung.label, "shown": hung.shown, "opens": hung.opens,
        "carrier": hung.carrier, "width": hung.full_width, "height": hung.full_height, "file": _download_name(shot),
        "parameters": hung.parameters,
    }  # fmt: skip


def _guidance(parameters: str) -> dict[str, str]:
    """By its names in other tools, which not every family counts as its stock pipeline does."""
    return dict(_GUIDANCE.findall(parameters.rpartition("\n")[2]))


def _download_name(shot: Shot) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", shot.file.removesuffix(".png")).strip(".-")[:80]
    return f"{stem or 'picture'}-{shot.id[:6]}.png"


def _cover(hung: Hung) -> dict[str, Any]:
    return {"shown": hung.shown, "width": hung.width, "height": hung.height}


def _sweep(folder: Path, keep: set[str]) -> None:
    """Remove what an earlier page needed, after the new one is written."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in keep:
            path.unlink(missing_ok=True)
