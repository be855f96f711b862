"""The paper's user study as a page: rank the setups by likeness to reference pictures, and by likeness to a text.

Gal et al. 2022, section 5.3. Blind: the page knows the pictures by the start of their digests only, and shuffles them for
each person; which setup made which stands in `choices/_questionnaire.json`, outside of the gallery.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ti_pipeline.choices.study import key_path
from ti_pipeline.choices.verdicts import ID
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, concept_path, pictures_folder, read_report
from ti_pipeline.files import atomic, digest_file, digest_value, write_json, write_text
from ti_pipeline.gallery.render import render
from ti_pipeline.params import Params
from ti_pipeline.workspace import Workspace

FOLDER = "_questionnaire"
SETUPS = 5
REFERENCES = 4
EDGE = 512


@dataclass(frozen=True)
class Evaluated:
    """An evaluation under the name that it has in the key, and the folder of its pictures."""

    name: str
    report: dict[str, Any]
    pictures: Path


def build_questionnaire(workspace: Workspace, params: Params, concepts: list[str]) -> int:
    """Write the page, its pictures and the key to them; returns the number of questions; with none there is no page."""
    folder = workspace.galleries / FOLDER
    questions: list[dict[str, Any]] = []
    key: dict[str, Any] = {}
    for slug in concepts:
        try:
            manifest = read_manifest(workspace, slug)
            reports = list(_reports(workspace, params, slug))
            for question, setups in _questions(manifest, reports, folder):
                questions.append(question)
                key[question["id"]] = {"kind": question["kind"], "concept": slug, "setups": setups}
        except (ConceptError, OSError):
            continue  # its own page says what is wrong with it
    if not questions:
        shutil.rmtree(folder, ignore_errors=True)
        key_path(workspace).unlink(missing_ok=True)
        return 0
    write_json(key_path(workspace), key)
    data = {"page": "questionnaire", "title": params.gallery.title, "questions": questions}
    write_text(folder / "index.html", render("questionnaire.html", title=params.gallery.title, data=data))
    _sweep(folder, questions)
    return len(questions)


def _reports(workspace: Workspace, params: Params, concept: str) -> Iterator[Evaluated]:
    """This workspace's evaluation and those that it is shown against."""
    for name, root in ((LEARNT, "."), *params.gallery.against.items()):
        other = Workspace.at(workspace.root / root, ".")
        report = read_report(concept_path(other, concept))
        if report and report.get("kept"):
            yield Evaluated(name, report, pictures_folder(other, concept))


def _questions(manifest: Manifest, reports: list[Evaluated], folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """One question of likeness and one for each prompt that every setup has pictures of."""
    if not reports or len(manifest.pictures) < 2:
        return
    seed = int(digest_value(["questionnaire", manifest.slug])[:8], 16)
    own = reports[0]
    spare = manifest.pictures[seed % len(manifest.pictures)]  # stands for `image only`, so it is not among the references
    held = [picture for picture in manifest.pictures if picture is not spare][:REFERENCES]
    shown = [_hang(manifest.open(picture), folder, picture.digest) for picture in held]
    texts: list[str | None] = [None, *dict.fromkeys(kept["text"] for kept in own.report["kept"] if kept["text"])]
    for k, text in enumerate(texts):
        setups: dict[str, str] = {}
        for evaluated in reports[: SETUPS - 2]:
            if shot := _one(evaluated, LEARNT, text, seed + k, folder):
                setups[shot] = evaluated.name
        if shot := _one(own, PROMPT, text, seed + k, folder):
            setups[shot] = PROMPT
        setups[_hang(manifest.open(spare), folder, spare.digest)] = PICTURES
        if len(setups) < 3:
            continue
        kind = "likeness" if text is None else "text"
        identity = digest_value([kind, manifest.slug, text, sorted(setups)])[:ID]
        of = {"references": shown} if text is None else {"text": readable(text)}
        yield {"id": identity, "kind": kind, **of, "pictures": sorted(setups)}, setups


def readable(text: str) -> str:
    """A prompt whose placeholder was left out, without the preposition and the article that now lead nowhere."""
    return re.sub(r"(?: in the style of| of(?: an?| the)?)(?=$| (?:on|in|at|with|as|beside|under)\b)", "", text)


def _one(evaluated: Evaluated, setup: str, text: str | None, seed: int, folder: Path) -> str:
    """The id of one of the kept pictures of a setup and prompt, drawn by `seed`; empty when there is none."""
    kept = [row for row in evaluated.report["kept"] if row["setup"] == setup and row["text"] == text]
    if not kept:
        return ""
    row = kept[seed % len(kept)]
    path = evaluated.pictures / Path(row["file"]).name
    if digest_file(path) != row["digest"]:
        return ""
    with Image.open(path) as picture:
        return _hang(picture.convert("RGB"), folder, row["digest"])


def _hang(picture: Image.Image, folder: Path, digest: str) -> str:
    """Every setup's picture at one size and in one format, so that neither tells whose it is; returns its id."""
    name = digest[:ID]
    path = folder / f"{name}.webp"
    if not path.is_file():
        edge = min(picture.size)
        left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
        square = picture.crop((left, top, left + edge, top + edge)).resize((EDGE, EDGE), Image.Resampling.LANCZOS)
        with atomic(path) as temporary:
            square.save(temporary, format="WEBP", quality=85, method=1)
    return name


def _sweep(folder: Path, questions: list[dict[str, Any]]) -> None:
    keep = {name for question in questions for name in (*question["pictures"], *question.get("references", ()))}
    for path in folder.glob("*.webp"):
        if path.stem not in keep:
            path.unlink()
