"""What a concept's page shows, read from what the earlier stages wrote. Numbers and texts; no HTML, no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open

from ti_pipeline.choices.verdicts import ID
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, concept_path, read_report
from ti_pipeline.files import digest_file, read_table, table_metadata
from ti_pipeline.ranking.select import competition_rank, ordinal
from ti_pipeline.workspace import Workspace

SHORTEST_BAR = 6  # percent, of the lowest value of a brief


@dataclass(frozen=True)
class Shot:
    """A candidate in its place. Bars are in percent of the spread of the brief's candidates."""

    id: str
    place: int
    ordinal: str
    words: str
    people: str
    reason: str
    duplicate_of: int | None
    likeness: float
    faithfulness: float
    likeness_bar: float
    faithfulness_bar: float
    candidate: int
    prompt: str
    negative_prompt: str
    seed: int
    solver: str
    steps: int
    guidance: float
    file: str
    digest: str
    width: int
    height: int
    generator: str


@dataclass(frozen=True)
class Pair:
    """The same brief and seed by another version of the word, or another setup."""

    brief_index: int
    file: str
    digest: str
    new: Shot


@dataclass(frozen=True)
class Versus:
    """Another workspace's candidates beside these: those that have a counterpart of the same brief and seed."""

    name: str
    version: str
    folder: Path
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Wall:
    """One brief: all of its candidates, best first, and how many of them are shown as the best."""

    index: int
    prompt: str
    shots: tuple[Shot, ...]
    best: int


@dataclass(frozen=True)
class Scale:
    """A measured value between its two references; positions in percent from the left."""

    name: str
    about: str
    value: float
    low: float
    high: float
    marks: tuple[tuple[str, float, float], ...]  # name, value, position
    at: float
    low_at: float
    high_at: float


@dataclass(frozen=True)
class Numbers:
    """The evaluation in brief; `gain` in percent with its interval, or None."""

    gain: dict[str, float] | None
    scales: tuple[Scale, ...]
    judge: str
    clip: str
    samples: int


@dataclass(frozen=True)
class Word:
    """The learnt word's file: how many vectors, and what it says about where it comes from."""

    vectors: int
    provenance: dict[str, str]


def read_word(path: Path, concept: str) -> Word:
    """Of its header alone: a gallery needs no tensor. Raises ConceptError."""
    try:
        with safe_open(path, framework="numpy") as file:
            return Word(sum(file.get_slice(name).get_shape()[0] for name in file.keys()), dict(file.metadata() or {}))  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConceptError(concept, f"{path}: damaged ({error}). Run `ti-pipeline train --force {concept}`.") from None


def read_walls(workspace: Workspace, concept: str, best: int) -> list[Wall]:
    """The ranking joined with the recipes. Raises ConceptError when one is missing or they are not of the same pictures."""
    recipes = {(row["brief_index"], row["candidate"]): row for row in _rows(workspace.candidate_table(concept), concept, "generate")}
    ranked = sorted(_rows(workspace.ranking(concept), concept, "rank"), key=lambda row: (row["brief_index"], row["place"]))
    if {key: row["digest"] for key, row in recipes.items()} != {(row["brief_index"], row["candidate"]): row["digest"] for row in ranked}:
        raise ConceptError(concept, f"the ranking is of other candidates than there are. Run `ti-pipeline rank {concept}`.")
    walls = []
    for index, group in groupby(ranked, key=lambda row: row["brief_index"]):
        rows = list(group)
        bars = {name: _bars([row[name] for row in rows]) for name in ("likeness", "faithfulness")}
        words = _words(rows)
        generator = table_metadata(workspace.candidate_table(concept)).get("generator", "")
        shots = tuple(
            _shot(row, recipes[index, row["candidate"]], bars["likeness"][k], bars["faithfulness"][k], words[k], generator)
            for k, row in enumerate(rows)
        )
        walls.append(Wall(index, rows[0]["prompt"], shots, min(best, len(shots))))
    return walls


def read_versus(workspace: Workspace, concept: str, name: str, folder: str, walls: list[Wall]) -> Versus | None:
    """The candidates in `folder`, a workspace of an earlier version or another setup; None when it has none of the same brief and seed.

    Raises ParamsError when there is no such folder: a mistyped path must not look like a word without a past.
    """
    other = Workspace.at(workspace.root / Path(folder).expanduser(), ".")
    if not other.artifacts.is_dir():
        raise ParamsError(f"gallery.against: {name!r}: {other.root} is no workspace (it has no artifacts/).")
    table = other.candidate_table(concept)
    if not table.is_file() or not other.embedding(concept).is_file():
        return None
    old = {(row["prompt"], row["seed"]): row for row in _rows(table, concept, "generate")}
    pairs = tuple(
        Pair(wall.index, row["file"], row["digest"], shot)
        for wall in walls
        for shot in wall.shots
        if (row := old.get((shot.prompt, shot.seed))) is not None and row["digest"] != shot.digest
    )
    return Versus(name, digest_file(other.embedding(concept))[:8], table.parent, pairs) if pairs else None


def read_numbers(workspace: Workspace, manifest: Manifest) -> Numbers | None:
    """The evaluation of the word as it is now, if there is one."""
    report, embedding = read_report(concept_path(workspace, manifest.slug)), workspace.embedding(manifest.slug)
    if report is None or not embedding.is_file() or report.get("embedding") != digest_file(embedding):
        return None
    scales = []
    for name, measure, about in (
        ("Likeness", "reconstruction", "how much fresh pictures look like the concept"),
        ("Editability", "editability", "how well fresh pictures follow the rest of a prompt"),
    ):
        setups = {setup: report["setups"][setup][measure] for setup in (LEARNT, PROMPT, PICTURES)}
        if all(setups.values()):
            scales.append(_scale(name, about, setups))
    by = report["measured_by"]
    samples = report["setups"][LEARNT]["reconstruction"]["n"] + report["setups"][LEARNT]["editability"]["n"]
    return Numbers(report["gain_percent"], tuple(scales), by["reconstruction"]["judge"], by["editability"]["clip"], samples)


def _rows(path: Path, concept: str, stage: str) -> list[dict]:
    try:
        rows = read_table(path)
    except FileNotFoundError:
        raise ConceptError(concept, f"{path} is not there. Run `ti-pipeline {stage} {concept}` first.") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise ConceptError(concept, f"{path}: damaged ({error}). Delete it and run `ti-pipeline {stage} {concept}`.") from None
    for row in rows:
        if Path(row["file"]).name != row["file"] or row["file"].startswith("."):
            raise ConceptError(
                concept, f"{path} names {row['file']!r}, which is no file of its folder. Run `ti-pipeline generate --force {concept}`."
            )
    return rows


def _bars(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    if high == low:
        return [100.0] * len(values)
    return [round(SHORTEST_BAR + (100 - SHORTEST_BAR) * (value - low) / (high - low), 1) for value in values]


def _words(rows: list[dict]) -> list[str]:
    """Why each stands where it does, in the words of someone who looks at pictures."""
    places = {name: competition_rank(np.array([row[name] for row in rows])) for name in ("likeness", "faithfulness")}
    number = {row["candidate"]: row["place"] for row in rows}
    told = []
    for k, row in enumerate(rows):
        if row["duplicate_of"] is not None:
            told.append(f"Almost the same picture as no.\N{NO-BREAK SPACE}{number.get(row['duplicate_of'], '?')}")
            continue
        like, faith = int(places["likeness"][k]), int(places["faithfulness"][k])
        if len(rows) == 1:
            told.append("The only candidate")
        elif like == faith == 1:
            told.append("Most like the references and closest to the brief")
        else:
            told.append(f"{_most(like)} like the references, {_closest(faith)} to the brief")
    return told


def _most(place: int) -> str:
    return "Most" if place == 1 else f"{ordinal(place)} most"


def _closest(place: int) -> str:
    return "closest" if place == 1 else f"{ordinal(place)} closest"


def _shot(row: dict, recipe: dict, likeness_bar: float, faithfulness_bar: float, words: str, generator: str) -> Shot:
    reason = row["reason"].partition(": ")[2] or row["reason"]
    first = reason.partition("; ")[0]
    return Shot(
        id=row["digest"][:ID], place=row["place"], ordinal=ordinal(row["place"]), words=words, reason=reason,
        people=first if first.startswith(("picked by ", "rejected by ")) or first.endswith((" star", " stars")) else "",
        duplicate_of=row["duplicate_of"], likeness=row["likeness"], faithfulness=row["faithfulness"],
        likeness_bar=likeness_bar, faithfulness_bar=faithfulness_bar, candidate=row["candidate"], prompt=recipe["prompt"],
        negative_prompt=recipe["negative_prompt"], seed=recipe["seed"], solver=recipe["solver"],
        steps=recipe["steps"], guidance=recipe["guidance_scale"], file=row["file"], digest=row["digest"],
        width=recipe["width"], height=recipe["height"], generator=generator,
    )  # fmt: skip


def _scale(name: str, about: str, setups: dict[str, dict[str, Any]]) -> Scale:
    learnt, ends = setups[LEARNT], {setup: setups[setup]["value"] for setup in (PROMPT, PICTURES)}
    values = [learnt["low"], learnt["high"], *ends.values()]
    low, high = min(values), max(values)
    room = (high - low) or 1.0

    def at(value: float) -> float:
        return round(4 + 92 * (value - low) / room, 2)

    marks = tuple((setup, value, at(value)) for setup, value in ends.items())
    return Scale(
        name, about, learnt["value"], learnt["low"], learnt["high"], marks, at(learnt["value"]), at(learnt["low"]), at(learnt["high"])
    )
