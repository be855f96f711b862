"""What a concept's page shows, read from what the earlier stages wrote. Numbers and texts; no HTML, no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
from safetensors import SafetensorError, safe_open

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, concept_path, read_report
from ti_pipeline.files import digest_file, read_table
from ti_pipeline.ranking.select import ordinal
from ti_pipeline.workspace import Workspace

SHORTEST_BAR = 6  # percent, of the lowest value of a brief


@dataclass(frozen=True)
class Shot:
    """A candidate in its place. Bars are in percent of the spread of the brief's candidates."""

    place: int
    ordinal: str
    reason: str
    duplicate: bool
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


@dataclass(frozen=True)
class Wall:
    """One brief: all of its candidates, best first, and how many of them are shown as the best."""

    index: int
    prompt: str
    shots: tuple[Shot, ...]
    best: int

    @property
    def best_shots(self) -> tuple[Shot, ...]:
        return self.shots[: self.best]


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
        shots = tuple(
            _shot(row, recipes[index, row["candidate"]], bars["likeness"][k], bars["faithfulness"][k], concept)
            for k, row in enumerate(rows)
        )
        walls.append(Wall(index, rows[0]["prompt"], shots, min(best, len(shots))))
    return walls


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


def _shot(row: dict, recipe: dict, likeness_bar: float, faithfulness_bar: float, concept: str) -> Shot:
    return Shot(
        place=row["place"], ordinal=ordinal(row["place"]), reason=row["reason"].partition(": ")[2] or row["reason"],
        duplicate=row["duplicate_of"] is not None, likeness=row["likeness"], faithfulness=row["faithfulness"],
        likeness_bar=likeness_bar, faithfulness_bar=faithfulness_bar, candidate=row["candidate"], prompt=recipe["prompt"],
        negative_prompt=recipe["negative_prompt"], seed=recipe["seed"], solver=recipe["solver"],
        steps=recipe["steps"], guidance=recipe["guidance_scale"], file=row["file"], digest=row["digest"],
        width=recipe["width"], height=recipe["height"],
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
