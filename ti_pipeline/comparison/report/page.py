"""The report: one page that needs nothing beside it, for a screen and for paper."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import ti_pipeline
from ti_pipeline.comparison.arms import Arm
from ti_pipeline.comparison.cells import FAILED, Cell, Files
from ti_pipeline.comparison.report import plots
from ti_pipeline.comparison.results import REFERENCES, Results
from ti_pipeline.evaluation.measure import RECONSTRUCTION
from ti_pipeline.evaluation.metrics import Estimate
from ti_pipeline.evaluation.report import PICTURES, PROMPT
from ti_pipeline.files import write_text
from ti_pipeline.gallery.render import STATIC, printable
from ti_pipeline.stages.stage import Run

ROOT = Path(str(resources.files("ti_pipeline.comparison.report")))
WORDS = {
    PICTURES: "The accepted pictures themselves are the samples; no picture is held against itself. Nothing can be more alike.",
    PROMPT: "No learnt word: the placeholder is left out of a prompt; for reconstruction the initializer stands in its place.",
}


@dataclass(frozen=True)
class Row:
    """An arm in the table, with texts as they are shown."""

    name: str
    colour: str
    marker: str
    about: str
    numbers: list[tuple[str, str]]
    differences: list[tuple[str, str, bool]]
    cost: list[str]
    reference: bool


def write_report(run: Run, results: Results) -> None:
    """Write the page and the figures in it."""
    folder = run.workspace.comparison
    figures = {"scatter.svg": plots.scatter(results), "curves.svg": plots.curves(results), "sweeps.svg": plots.sweeps(results)}
    for name, svg in figures.items():
        if svg:
            write_text(folder / name, svg)
        else:
            (folder / name).unlink(missing_ok=True)
    page = (
        _environment()
        .get_template("report.html")
        .render(
            results=results,
            style=Markup(
                (STATIC / "gallery.css").read_text(encoding="utf-8") + (ROOT / "templates" / "report.css").read_text(encoding="utf-8")
            ),
            figures={name.removesuffix(".svg"): _inlined("svg+xml", svg.encode()) for name, svg in figures.items() if svg},
            kinds=sorted({order.manifest.kind for order in results.orders}),
            neutral=RECONSTRUCTION,
            rows=list(_rows(results)),
            walls=list(_walls(results, Files(run.workspace))),
            losses=list(_losses(results)),
            facts=_facts(run),
            settings=_settings(run),
            curve=any(results.curve(arm.name) for arm in results.arms),
        )
    )
    write_text(folder / "report.html", page)


def _rows(results: Results) -> Iterator[Row]:
    changes = {arm.name: said(arm, results.baseline) for arm in results.arms} | WORDS
    for name in results.names:
        reference = name in REFERENCES
        colour, marker = (plots.COLOURS[name], "—") if reference else (plots.look(results, name)[0], SHAPES[plots.look(results, name)[1]])
        means = [_told(results.mean(name, measure)) for measure in ("reconstruction", "editability", "editability_per_sample")]
        differences = [_compared(results.difference(name, measure)) for measure in ("reconstruction", "editability")]
        steps, goal, seconds = results.steps(name), results.steps_to_baseline(name), results.seconds(name)
        cost = [
            "–" if steps is None else f"{steps:.0f}",
            "–" if goal is None else f"{goal:.0f}",
            "–" if seconds is None else f"{seconds:.1f}",
        ]
        yield Row(name, colour, marker, changes[name], means, differences, cost, reference)


SHAPES = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖", "<": "◀", ">": "▶", "p": "⬟", "h": "⬢"}


def said(arm: Arm, baseline: str) -> str:
    """What an arm changes, in words."""
    if arm.name == baseline and not arm.changes:
        return "The section train as it stands: what all others are held against."
    return "; ".join(f"{key} {_value(value)}" for key, value in arm.changes.items())


def _value(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).replace("\n...", "").strip()


def _told(estimate: Estimate | None) -> tuple[str, str]:
    """A mean and its interval."""
    return ("–", "") if estimate is None else (f"{estimate.value:.3f}", f"{estimate.low:.3f} to {estimate.high:.3f}")


def _compared(estimate: Estimate | None) -> tuple[str, str, bool]:
    """A difference, its interval, and whether that leaves out zero."""
    if estimate is None:
        return "–", "", False
    interval = f"{_signed(estimate.low)} to {_signed(estimate.high)}"
    return _signed(estimate.value), interval, estimate.low > 0 or estimate.high < 0


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True)
class Wall:
    """Pictures of one concept: the set, then a strip for each arm, whose columns are `prompts`."""

    slug: str
    token: str
    seed: int
    prompts: list[str]
    own: str
    count: int
    strips: list[tuple[str, str, str]]  # name, picture, or why there is none


def _walls(results: Results, files: Files) -> Iterator[Wall]:
    for order in results.orders:
        first: dict[str, Cell] = {}
        for cell in order.cells:
            first.setdefault(cell.arm, cell)
        prompts = list(results.numbers[first[PICTURES].digest]["prompts"])
        strips = []
        for name in (PROMPT, *(arm.name for arm in results.arms)):
            if own := first.get(name):
                strips.append((name, _strip(files, own), results.numbers[own.digest].get(FAILED, "")))
            else:
                strips.append((name, "", order.left_out.get(name, "")))
        manifest = order.manifest
        count = min(len(manifest.pictures), len(prompts) + 1)
        yield Wall(
            manifest.slug, manifest.token, results.section.seeds[0], [RECONSTRUCTION[manifest.kind], *prompts],
            _strip(files, first[PICTURES]), count, strips,
        )  # fmt: skip


def _strip(files: Files, cell: Cell) -> str:
    path = files.strip(cell)
    return _inlined("webp", path.read_bytes()) if path.is_file() else ""


def _inlined(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _losses(results: Results) -> Iterator[str]:
    """What is missing, and why."""
    for order in results.orders:
        for name, why in order.left_out.items():
            yield f"{order.manifest.slug}, {name}: {why}"
        for cell in order.cells:
            if failed := results.numbers[cell.digest].get(FAILED):
                yield f"{cell.concept}, {cell.arm}, seed {cell.seed}: {failed}"
    for slug in results.waiting:
        yield f"{slug}: its cells are not all there yet"


def _facts(run: Run) -> list[tuple[str, str]]:
    """What was run."""
    models = run.models
    return [
        ("ti-pipeline", ti_pipeline.__version__),
        ("generator", f"{run.params.generator.model}, {models.source.digest[:16]}"),
        ("reconstruction by the judge", f"{run.params.judge.model}, {models.judge.digest[:16]}"),
        ("editability by CLIP", f"{run.params.ranker.model}, {models.ranker.digest[:16]}"),
        ("seeds", ", ".join(map(str, run.params.compare.seeds))),
        ("precision", run.params.generator.precision),
    ]


def _settings(run: Run) -> str:
    """The sections that all of it follows from, as YAML."""
    sections = run.params.section("train", "compare") | {"evaluate": {"prompts": run.params.evaluate.prompts}}
    return yaml.safe_dump(sections, sort_keys=False, allow_unicode=True, width=100)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=printable, keep_trailing_newline=True,
    )  # fmt: skip
