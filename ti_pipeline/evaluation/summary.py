"""All concepts together: `metrics.json` for `dvc metrics`, its details, two tables for `dvc plots`, two pictures for people."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ti_pipeline.choices.study import read_study
from ti_pipeline.evaluation.metrics import DECIMALS, mean_estimate
from ti_pipeline.evaluation.plots import draw_per_brief, draw_scatter
from ti_pipeline.evaluation.report import LEARNT, SETUPS, concept_path, read_report
from ti_pipeline.files import atomic, write_json
from ti_pipeline.workspace import Workspace

RESAMPLES = 10_000  # of a few hundred means at most: no cost worth a setting
FIGURES = ("concepts", "reconstruction", "editability", "gain_percent")
MEASURES = ("reconstruction", "editability", "editability_per_sample")
_BRIEF = ("concept", "kind", "prompt", "text", "setup")
_COLUMNS = tuple(f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high"))


def summarise(workspace: Workspace, concepts: Iterable[str]) -> Path:
    """Write metrics, tables and plots over the reports of `concepts`; returns the path of `metrics.json`, written last.

    `metrics.json` has the figures that a run is compared by, `details.json` beside it all of them with their intervals.
    Concepts without a report are passed over. Numbers of different generators, judges or CLIPs do not mix: those that
    most concepts were measured with count, and how many were left out is said.
    """
    folder = workspace.evaluation
    paths = [concept_path(workspace, slug) for slug in sorted(set(concepts))]
    models = {path: _models(report) for path in paths if (report := read_report(path))}
    most = _most(models.values())
    seen = _Seen()
    # Each report is read a second time: all of them at once would fill the memory.
    reports = (report for path, own in models.items() if own == most and (report := read_report(path)))
    with _table(folder / "scatter.csv", ("concept", "setup")) as scatter, _table(folder / "per_brief.csv", _BRIEF) as briefs:
        for report in reports:
            seen.add(report)
            scatter.writerows((report["concept"], name, *_flat(report["setups"][name])) for name in SETUPS)
            for brief in report["briefs"]:
                about = (report["concept"], report["kind"], brief["prompt"], brief["text"])
                briefs.writerows((*about, name, *_flat(brief["setups"][name])) for name in SETUPS)
    details = seen.metrics() | {"left_out": len(models) - seen.concepts}
    study = read_study(workspace)
    if study:
        details |= _said(study)
    draw_scatter(folder / "scatter.svg", seen.values, details, study)
    draw_per_brief(folder / "per_brief.svg", seen.prompts)
    write_json(folder / "details.json", details)
    path = folder / "metrics.json"
    write_json(path, {name: details[name] for name in FIGURES if name in details})
    return path


def _models(report: dict[str, Any]) -> tuple[str, ...]:
    return (report["generator"]["digest"], *(report["measured_by"][what]["digest"] for what in ("reconstruction", "editability")))


def _most(models: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    counts = Counter(models)
    return min(counts, key=lambda which: (-counts[which], which), default=None)


class _Seen:
    """What the means and the plots need of the reports, which are dropped one by one."""

    def __init__(self) -> None:
        self.concepts = 0
        self.values: dict[str, dict[str, list[float | None]]] = {name: {measure: [] for measure in MEASURES} for name in SETUPS}
        self.gains: list[float | None] = []
        self.prompts: dict[str, dict[str, list[float]]] = {}
        self.by: dict[str, Any] = {}

    def add(self, report: dict[str, Any]) -> None:
        self.concepts += 1
        self.by = self.by or report["measured_by"]
        for name, measures in self.values.items():
            for measure, values in measures.items():
                values.append((report["setups"][name][measure] or {}).get("value"))
        if report["gain_percent"]:
            self.gains.append(report["gain_percent"]["value"])
        for brief in report["briefs"]:
            of_prompt = self.prompts.setdefault(brief["prompt"], {name: [] for name in SETUPS})
            for name, means in of_prompt.items():
                if measured := brief["setups"][name]["editability"]:
                    means.append(measured["value"])

    def metrics(self) -> dict[str, Any]:
        """Means over the concepts; their intervals say what other concepts would have given."""
        metrics: dict[str, Any] = {"concepts": self.concepts}
        if not self.concepts:
            return metrics
        rng = np.random.default_rng(0)
        for name, measures in self.values.items():
            before = "" if name == LEARNT else f"{name.replace(' ', '_')}_"
            for measure, values in measures.items():
                metrics |= _mean(f"{before}{measure}", values, rng)
        metrics |= _mean("gain_percent", self.gains, rng)
        judge, clip = self.by["reconstruction"]["judge"], self.by["editability"]["clip"]
        return metrics | {"reconstruction_by": f"judge {judge}", "editability_by": f"CLIP {clip}"}


def _said(study: dict[str, Any]) -> dict[str, float | int]:
    """What people answered in the questionnaire, as flat metrics."""
    said: dict[str, float | int] = {"study_people": study["people"]} | {f"study_{kind}_answers": n for kind, n in study["answers"].items()}
    for setup, kinds in study["setups"].items():
        for kind, estimate in kinds.items():
            if estimate:
                name = f"study_{re.sub(r'[^a-z0-9]+', '_', setup.lower())}_{kind}"
                said |= {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}
    return said


def _mean(name: str, known: list[float | None], rng: np.random.Generator) -> dict[str, float]:
    values = np.array([value for value in known if value is not None])
    if not len(values):
        return {}
    mean = mean_estimate(values, RESAMPLES, rng)
    return {name: round(mean.value, DECIMALS), f"{name}_low": round(mean.low, DECIMALS), f"{name}_high": round(mean.high, DECIMALS)}


def _flat(setup: dict[str, Any]) -> list[float | None]:
    return [(setup[measure] or {}).get(end) for measure in MEASURES for end in ("value", "low", "high")]


@contextmanager
def _table(path: Path, about: tuple[str, ...]) -> Iterator[Any]:
    """A writer of rows, `about` before the measures."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow((*about, *_COLUMNS))
        yield writer
