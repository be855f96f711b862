"""Answers to the questionnaire, summed up: how often each setup beats another, by likeness and by text."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ti_pipeline.choices.store import Answer
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import write_json
from ti_pipeline.workspace import Workspace

RESAMPLES = 10_000
KINDS = ("likeness", "text")


def key_path(workspace: Workspace) -> Path:
    """Which setup made which picture of the questionnaire."""
    return workspace.root / "choices" / "_questionnaire.json"


def study_path(workspace: Workspace) -> Path:
    """What the evaluation's summary reads."""
    return workspace.root / "choices" / "_study.json"


def sum_up(workspace: Workspace, answers: Iterable[Answer]) -> dict[str, Any]:
    """Write `choices/_study.json` and return it.

    A setup's value is the share of the other setups that it beats in a person's order, a mean over all answers: 0.5 is
    chance. Intervals are 95 % percentile bootstrap; people are drawn anew, not answers, for one person's are alike.
    With a single person answers are drawn. Answers to questions that have gone are left out and counted.
    Raises ParamsError when there is no questionnaire.
    """
    try:
        key = json.loads(key_path(workspace).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"{key_path(workspace)}: there is no questionnaire ({error}). Run `ti-pipeline evaluate` and `gallery`."
        ) from None
    scores: dict[str, dict[str, dict[str, list[float]]]] = {kind: defaultdict(lambda: defaultdict(list)) for kind in KINDS}
    counted, left_out, people = dict.fromkeys(KINDS, 0), 0, set()
    for answer in answers:
        question = key.get(answer.question)
        if question is None or sorted(answer.places) != sorted(question["setups"]):
            left_out += 1
            continue
        counted[question["kind"]] += 1
        people.add(answer.person)
        last = len(answer.places) - 1
        for place, picture in enumerate(answer.places):
            scores[question["kind"]][question["setups"][picture]][answer.person].append((last - place) / last)
    rng = np.random.default_rng(0)
    setups = sorted({setup for kind in KINDS for setup in scores[kind]})
    study = {
        "answers": counted, "people": len(people), "left_out": left_out,
        "setups": {setup: {kind: _estimate(scores[kind].get(setup, {}), rng) for kind in KINDS} for setup in setups},
    }  # fmt: skip
    write_json(study_path(workspace), study)
    return study


def read_study(workspace: Workspace) -> dict[str, Any] | None:
    try:
        study = json.loads(study_path(workspace).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return study if isinstance(study, dict) and study.get("setups") else None


def _estimate(by_person: dict[str, list[float]], rng: np.random.Generator) -> dict[str, float | int] | None:
    groups = [np.array(values) for values in by_person.values()]
    if not groups:
        return None
    if len(groups) == 1:
        groups = [np.array([value]) for value in groups[0]]
    sums, counts = np.array([g.sum() for g in groups]), np.array([len(g) for g in groups])
    shares = rng.multinomial(len(groups), np.full(len(groups), 1 / len(groups)), size=RESAMPLES)
    drawn = (shares @ sums) / (shares @ counts)
    return {
        "value": round(float(sums.sum() / counts.sum()), 4),
        "low": round(float(np.quantile(drawn, 0.025)), 4),
        "high": round(float(np.quantile(drawn, 0.975)), 4),
        "n": int(counts.sum()),
    }
