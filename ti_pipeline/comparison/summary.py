"""Writes what came of a comparison: figures for `dvc metrics` and `dvc plots`, all details, the report for people."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ti_pipeline.comparison.arms import arms, swept
from ti_pipeline.comparison.cells import FAILED, Files, Wanted
from ti_pipeline.comparison.results import MEASURES, Results
from ti_pipeline.comparison.state import comparison_fingerprint, details_path, metrics_path, stands
from ti_pipeline.evaluation.metrics import DECIMALS, Estimate
from ti_pipeline.files import atomic, write_json
from ti_pipeline.stages.stage import Run
from ti_pipeline.workspace import Workspace

ENDS = ("", "_low", "_high")
COLUMNS = [f"{measure}{end}" for measure in MEASURES for end in ENDS]
TABLES: dict[str, list[str]] = {
    "arms.csv": ["setup", *COLUMNS],
    "differences.csv": ["setup", *COLUMNS],
    "curves.csv": ["setup", "step", *COLUMNS],
    "sweeps.csv": ["sweep", "value", "setup", *COLUMNS],
    "cells.csv": ["concept", "setup", "seed", *MEASURES, FAILED],
}
PAGES = ("report.html", "scatter.svg", "curves.svg", "sweeps.svg")


def nothing(workspace: Workspace) -> None:
    """The output of a comparison of nothing. Cells of an earlier one are put aside."""
    if stands(workspace, ""):
        return
    files = Files(workspace)
    for path in (details_path(workspace), *(workspace.comparison / name for name in PAGES)):
        path.unlink(missing_ok=True)
    _tidy(files, {})
    for name in TABLES:
        _write_table(workspace.comparison / name, name, ())
    write_json(metrics_path(workspace), {})


def summarise(run: Run, orders: Sequence[Wanted]) -> Path:
    """Over the concepts whose cells all stand; returns the path of `metrics.json`, written last."""
    from ti_pipeline.comparison.report.page import write_report

    workspace, files = run.workspace, Files(run.workspace)
    results = Results.read(run.params.compare, arms(run.params), orders, files)
    _tidy(files, {order.manifest.slug: order for order in orders})
    tables = {
        "arms.csv": ([name, *_flat(results, name)] for name in results.names),
        "differences.csv": ([name, *_cells(lambda m, name=name: results.difference(name, m))] for name in results.names[1:]),
        "curves.csv": _curves(results),
        "sweeps.csv": _sweeps(results),
        "cells.csv": _each(results),
    }
    for name, rows in tables.items():
        _write_table(workspace.comparison / name, name, rows)
    write_report(run, results)
    write_json(details_path(workspace), _details(run, results))
    path = metrics_path(workspace)
    write_json(path, {name: _figures(results, name) for name in results.names} if results.orders else {})
    return path


def _tidy(files: Files, orders: dict[str, Wanted]) -> None:
    """The output holds the cells of these and no others."""
    for folder in files.folder.glob("[!.]*") if files.folder.is_dir() else ():
        order = orders.get(folder.name)
        files.put_aside(folder.name, order.cells if order else ())
        if not any(folder.iterdir()):
            folder.rmdir()


def _figures(results: Results, name: str) -> dict[str, float]:
    found = {measure: results.mean(name, measure) for measure in MEASURES[:2]}
    return {measure: round(value.value, DECIMALS) for measure, value in found.items() if value}


def _details(run: Run, results: Results) -> dict[str, Any]:
    of_arms = {}
    for name in results.names:
        of_arms[name] = {
            **{measure: _json(results.mean(name, measure)) for measure in MEASURES},
            "difference": {measure: _json(results.difference(name, measure)) for measure in MEASURES},
            "steps": results.steps(name),
            "steps_to_baseline": results.steps_to_baseline(name),
            "failed": results.failed(name),
            "prompts": {prompt: round(value, DECIMALS) for prompt, value in results.prompt_means(name).items()},
        }
    return {
        "fingerprint": comparison_fingerprint(run.params),
        "concepts": [order.manifest.slug for order in results.orders],
        "not_yet": list(results.waiting),
        "left_out": {order.manifest.slug: order.left_out for order in results.orders if order.left_out},
        "seeds": list(results.section.seeds),
        "baseline": results.baseline,
        "setups": of_arms,
        "changes": {arm.name: arm.changes for arm in results.arms},
    }


def _flat(results: Results, name: str) -> list[float | None]:
    return _cells(lambda measure: results.mean(name, measure))


def _curves(results: Results) -> Iterator[list[Any]]:
    for arm in results.arms:
        for point in results.curve(arm.name):
            yield [arm.name, point["step"], *_cells(lambda measure, point=point: point[measure])]


def _sweeps(results: Results) -> Iterator[list[Any]]:
    for title, sweep in results.section.sweeps.items():
        for value, (name, _) in zip(sweep.values, swept(title, sweep), strict=True):
            yield [title, value, name, *_flat(results, name)]


def _each(results: Results) -> Iterator[list[Any]]:
    for name in results.names:
        for _, _, cell in results.cells[name]:
            numbers = results.numbers[cell.digest]
            yield [cell.concept, name, cell.seed, *(numbers.get(measure) for measure in MEASURES), numbers.get(FAILED, "")]


def _cells(of: Any) -> list[float | None]:
    row: list[float | None] = []
    for measure in MEASURES:
        found = _json(of(measure)) or {}
        row += [found.get(end) for end in ("value", "low", "high")]
    return row


def _json(estimate: Estimate | None) -> dict[str, float | int] | None:
    return estimate.to_json() if estimate else None


def _write_table(path: Path, name: str, rows: Iterable[Sequence[Any]]) -> None:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TABLES[name])
        writer.writerows(rows)
