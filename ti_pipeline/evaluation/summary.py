"""All concepts together: `metrics.json` for `dvc metrics`, two tables for `dvc plots`, two pictures for people."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ti_pipeline.choices.study import read_study
from ti_pipeline.evaluation.metrics import DECIMALS, mean_estimate
from ti_pipeline.evaluation.plots import draw_per_brief, draw_scatter
from ti_pipeline.evaluation.report import LEARNT, SETUPS, concept_path, read_report
from ti_pipeline.files import write_json, write_text
from ti_pipeline.workspace import Workspace

RESAMPLES = 10_000  # of a few hundred means at most: no cost worth a setting
MEASURES = ("reconstruction", "editability", "editability_per_sample")
_COLUMNS = tuple(f"{measure}{end}" for measure in MEASURES for end in ("", "_low", "_high"))


def summarise(workspace: Workspace, concepts: Iterable[str]) -> Path:
    """Write metrics, tables and plots over the reports of `concepts`; returns the path of `metrics.json`, written last.

    Concepts without a report are passed over. Numbers of different generators, judges or CLIPs do not mix: those that
    most concepts were measured with count, and how many were left out is said.
    """
    found = [report for slug in sorted(set(concepts)) if (report := read_report(concept_path(workspace, slug)))]
    reports = _comparable(found)
    folder = workspace.evaluation
    scatter = [{"concept": r["concept"], "setup": name, **_flat(r["setups"][name])} for r in reports for name in SETUPS]
    briefs = [
        {
            "concept": r["concept"],
            "kind": r["kind"],
            **{k: brief[k] for k in ("prompt", "text")},
            "setup": name,
            **_flat(brief["setups"][name]),
        }
        for r in reports
        for brief in r["briefs"]
        for name in SETUPS
    ]
    _write_csv(folder / "scatter.csv", ("concept", "setup", *_COLUMNS), scatter)
    _write_csv(folder / "per_brief.csv", ("concept", "kind", "prompt", "text", "setup", *_COLUMNS), briefs)
    metrics = _metrics(reports) | {"left_out": len(found) - len(reports)}
    study = read_study(workspace)
    if study:
        metrics |= _said(study)
    draw_scatter(folder / "scatter.svg", scatter, metrics, study)
    draw_per_brief(folder / "per_brief.svg", briefs)
    path = folder / "metrics.json"
    write_json(path, metrics)
    return path


def _comparable(reports: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def models(report: dict[str, Any]) -> tuple[str, ...]:
        return (report["generator"]["digest"], *(report["measured_by"][what]["digest"] for what in ("reconstruction", "editability")))

    if not reports:
        return []
    counts = Counter(map(models, reports))
    most = min(counts, key=lambda which: (-counts[which], which))
    return [report for report in reports if models(report) == most]


def _metrics(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the concepts; their intervals say what other concepts would have given."""
    metrics: dict[str, Any] = {"concepts": len(reports)}
    if not reports:
        return metrics
    rng = np.random.default_rng(0)
    for name in SETUPS:
        before = "" if name == LEARNT else f"{name.replace(' ', '_')}_"
        for measure in MEASURES:
            metrics |= _mean(f"{before}{measure}", [r["setups"][name][measure] for r in reports], rng)
    metrics |= _mean("gain_percent", [r["gain_percent"] for r in reports], rng)
    by = reports[0]["measured_by"]
    return metrics | {"reconstruction_by": f"judge {by['reconstruction']['judge']}", "editability_by": f"CLIP {by['editability']['clip']}"}


def _said(study: dict[str, Any]) -> dict[str, float | int]:
    """What people answered in the questionnaire, as flat metrics."""
    said: dict[str, float | int] = {"study_people": study["people"]} | {f"study_{kind}_answers": n for kind, n in study["answers"].items()}
    for setup, kinds in study["setups"].items():
        for kind, estimate in kinds.items():
            if estimate:
                name = f"study_{re.sub(r'[^a-z0-9]+', '_', setup.lower())}_{kind}"
                said |= {name: estimate["value"], f"{name}_low": estimate["low"], f"{name}_high": estimate["high"]}
    return said


def _mean(name: str, estimates: list[dict[str, Any] | None], rng: np.random.Generator) -> dict[str, float]:
    values = np.array([estimate["value"] for estimate in estimates if estimate])
    if not len(values):
        return {}
    mean = mean_estimate(values, RESAMPLES, rng)
    return {name: round(mean.value, DECIMALS), f"{name}_low": round(mean.low, DECIMALS), f"{name}_high": round(mean.high, DECIMALS)}


def _flat(setup: dict[str, Any]) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for measure in MEASURES:
        estimate = setup[measure] or {}
        row |= {measure: estimate.get("value"), f"{measure}_low": estimate.get("low"), f"{measure}_high": estimate.get("high")}
    return row


def _write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
