"""What a concept's page shows, read from what the earlier stages wrote. Numbers and texts; no HTML, no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ti_pipeline.choices.verdicts import ID
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, concept_path, read_report
from ti_pipeline.files import digest_file, read_table, table_metadata
from ti_pipeline.ranking.select import competition_rank, ordinal
from ti_pipeline.workspace import Workspace

FLAT = 1e-3  # ends of a scale that are nearer than this are no scale


@dataclass(frozen=True)
class Shot:
    """A candidate in its place.

    `stack` is the id of the best of those that are almost the same picture, its own where it is that one; `alike` says there how
    many others there are. `percent` is the likeness on the way from the plain word (0) to the photos (100), where that is known.
    """

    id: str
    place: int
    ordinal: str
    words: str
    people: str
    reason: str
    stack: str
    alike: int
    best: bool
    likeness: float
    faithfulness: float
    percent: float | None
    candidate: int
    prompt: str
    negative_prompt: str
    seed: int
    solver: str
    steps: int
    file: str
    digest: str
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
    """One brief: all of its candidates, best first, and how many different ones of them are shown as the best."""

    index: int
    prompt: str
    shots: tuple[Shot, ...]
    best: int


@dataclass(frozen=True)
class Scale:
    """A measured value with its interval, in percent of the way from `ends[0]` to `ends[1]`; `raw` are the cosines, by setup."""

    name: str
    about: str
    ends: tuple[str, str]
    percent: float
    low: float
    high: float
    raw: dict[str, float]


@dataclass(frozen=True)
class Numbers:
    """The evaluation in brief; `gain` in percent with its interval, or None."""

    gain: dict[str, float] | None
    scales: tuple[Scale, ...]
    judge: str
    clip: str
    samples: int
    warning: str | None = None


def read_walls(workspace: Workspace, concept: str, best: int) -> list[Wall]:
    """The ranking joined with the recipes. Raises ConceptError when one is missing or they are not of the same pictures."""
    recipes = {(row["brief_index"], row["candidate"]): row for row in _rows(workspace.candidate_table(concept), concept, "generate")}
    ranked = sorted(_rows(workspace.ranking(concept), concept, "rank"), key=lambda row: (row["brief_index"], row["place"]))
    if {key: row["digest"] for key, row in recipes.items()} != {(row["brief_index"], row["candidate"]): row["digest"] for row in ranked}:
        raise ConceptError(concept, f"the ranking is of other candidates than there are. Run `ti-pipeline rank {concept}`.")
    generator = table_metadata(workspace.candidate_table(concept)).get("generator", "")
    ends = _likeness_ends(workspace, concept)
    walls = []
    for index, group in groupby(ranked, key=lambda row: row["brief_index"]):
        rows = list(group)
        stacks = _stacks(rows)
        leads = [k for k, lead in enumerate(stacks) if lead == k]
        shown, words = set(leads[:best]), _words(rows, stacks)
        shots = tuple(
            _shot(
                row, recipes[index, row["candidate"]], words=words[k], generator=generator, percent=_percent(row["likeness"], ends),
                stack=rows[lead]["digest"][:ID], alike=stacks.count(k) - 1 if lead == k else 0, best=lead in shown,
            )
            for k, (row, lead) in enumerate(zip(rows, stacks, strict=True))
        )  # fmt: skip
        walls.append(Wall(index, rows[0]["prompt"], shots, len(shown)))
    return walls


def _stacks(rows: list[dict]) -> list[int]:
    """For each row of a brief the first of those that are almost the same picture. People's choices may have put any of them first."""
    first: dict[int, int] = {}
    for k, row in enumerate(rows):
        first.setdefault(row["candidate"] if row["duplicate_of"] is None else row["duplicate_of"], k)
    return [first[row["candidate"] if row["duplicate_of"] is None else row["duplicate_of"]] for row in rows]


def _likeness_ends(workspace: Workspace, concept: str) -> tuple[float, float] | None:
    """The ranker's likeness of what the plain word draws, and of the photos to each other; None unless the same ranker saw both."""
    report = read_report(concept_path(workspace, concept))
    embedding = workspace.embedding(concept)
    if report is None or not embedding.is_file() or report.get("embedding") != digest_file(embedding):
        return None
    ends, clip = report.get("clip_likeness"), report["measured_by"]["editability"].get("digest")
    if not ends or ends[PICTURES] is None or clip != table_metadata(workspace.ranking(concept)).get("ranker_digest"):
        return None
    return ends[PROMPT], ends[PICTURES]


def _percent(value: float, ends: tuple[float, float] | None) -> float | None:
    if ends is None or ends[1] - ends[0] < FLAT:
        return None
    return round(100 * (value - ends[0]) / (ends[1] - ends[0]), 1)


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
    for name, measure, about, low, high in (
        ("Likeness", "reconstruction", "how much fresh pictures look like your photos", (PROMPT, "plain word"), (PICTURES, "your photos")),
        ("Follows the prompt", "editability", "how well fresh pictures show what else a prompt asks for",
         (PICTURES, "your photos"), (PROMPT, "without the word")),
    ):  # fmt: skip
        setups = {setup: report["setups"][setup][measure] for setup in (LEARNT, PROMPT, PICTURES)}
        if all(setups.values()):
            scales += _scale(name, about, setups, low, high)
    by = report["measured_by"]
    samples = sum(measured["n"] for name in ("reconstruction", "editability") if (measured := report["setups"][LEARNT][name]))
    judge, clip = by["reconstruction"]["judge"], by["editability"]["clip"]
    return Numbers(report["gain_percent"], tuple(scales), judge, clip, samples, report.get("warning"))


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


def _words(rows: list[dict], stacks: list[int]) -> list[str]:
    """Why each stands where it does, in the words of someone who looks at pictures."""
    places = {name: competition_rank(np.array([row[name] for row in rows])) for name in ("likeness", "faithfulness")}
    told = []
    for k, lead in enumerate(stacks):
        like, faith = int(places["likeness"][k]), int(places["faithfulness"][k])
        if lead != k:
            told.append(f"Almost the same picture as no.\N{NO-BREAK SPACE}{rows[lead]['place']}")
        elif len(rows) == 1:
            told.append("The only candidate")
        elif not any(row["likeness"] for row in rows):
            told.append(f"{_closest(faith).capitalize()} to the brief")
        elif like == faith == 1:
            told.append("Most like your photos and closest to the brief")
        else:
            told.append(f"{_most(like)} like your photos, {_closest(faith)} to the brief")
    return told


def _most(place: int) -> str:
    return "Most" if place == 1 else f"{ordinal(place)} most"


def _closest(place: int) -> str:
    return "closest" if place == 1 else f"{ordinal(place)} closest"


def _shot(row: dict, recipe: dict, **about: Any) -> Shot:
    reason = row["reason"].partition(": ")[2] or row["reason"]
    first = reason.partition("; ")[0]
    return Shot(
        id=row["digest"][:ID], place=row["place"], ordinal=ordinal(row["place"]), reason=reason,
        people=first if first.startswith(("picked by ", "rejected by ")) or first.endswith((" star", " stars")) else "",
        likeness=row["likeness"], faithfulness=row["faithfulness"], candidate=row["candidate"], prompt=recipe["prompt"],
        negative_prompt=recipe["negative_prompt"], seed=recipe["seed"], solver=recipe["solver"],
        steps=recipe["steps"], file=row["file"], digest=row["digest"],
        **about,
    )  # fmt: skip


def _scale(name: str, about: str, setups: dict[str, dict], low: tuple[str, str], high: tuple[str, str]) -> list[Scale]:
    """The learnt word's value between those of two other setups, each with its name here; empty where there is no room between them."""
    ends = (setups[low[0]]["value"], setups[high[0]]["value"])
    learnt = setups[LEARNT]
    known = [_percent(learnt[key], ends) for key in ("value", "low", "high")]
    percent = [value for value in known if value is not None]
    if len(percent) < len(known):
        return []
    raw = {shown: setups[setup]["value"] for setup, shown in ((LEARNT, "learnt word"), (PROMPT, "plain word"), (PICTURES, "your photos"))}
    return [Scale(name, about, (low[1], high[1]), percent[0], percent[1], percent[2], raw)]
