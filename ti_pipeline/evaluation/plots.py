"""The two plots for people, as SVG with equal bytes for equal numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT, SETUPS
from ti_pipeline.files import atomic

COLOURS = {LEARNT: "#0b62c4", PICTURES: "#a3541a", PROMPT: "#4d6b2c"}
MARKERS = {LEARNT: "o", PICTURES: "s", PROMPT: "D"}
INK, GRID = "#22262c", "#dfe3e8"
PROMPTS = 24  # rows of the per-brief plot; a collection with more has them in the table
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ti-pipeline",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
}


def draw_scatter(
    path: Path, values: Mapping[str, Mapping[str, list[float | None]]], metrics: dict[str, Any], study: dict[str, Any] | None
) -> None:
    """One small point for each concept and setup, one large point with its interval for each setup's mean over the concepts.

    `values` are those of the concepts by setup and measure, `metrics` the means.

    With a `study` people's answers stand beside it on the same two axes, as in the paper's figure 10.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.6 if study else 7.2, 5.4), layout="constrained")
        axes = figure.add_subplot(1, 2, 1) if study else figure.add_subplot()
        if study:
            _draw_study(figure.add_subplot(1, 2, 2), study)
        for name in SETUPS:
            pairs = zip(values[name]["reconstruction"], values[name]["editability"], strict=True)
            points = [(x, y) for x, y in pairs if x is not None]
            if not points:
                continue
            likeness, faithfulness = zip(*points, strict=True)
            axes.scatter(likeness, faithfulness, s=16, color=COLOURS[name], alpha=0.35, linewidths=0)
            _mean_point(axes, name, metrics)
        axes.set_xlabel("reconstruction: likeness to the concept, by the judge →")
        axes.set_ylabel("editability: faithfulness to the prompt, by CLIP →")
        count = metrics["concepts"]
        axes.set_title(f"{count} concept{'' if count == 1 else 's'}: small points; mean with 95 % interval: large", fontsize=10, loc="left")
        if not axes.has_data():
            _say_nothing(axes)
        _save(figure, path)


def _draw_study(axes: Axes, study: dict[str, Any]) -> None:
    for setup, kinds in study["setups"].items():
        x, y = kinds["likeness"], kinds["text"]
        if not (x and y):
            continue
        colour = COLOURS.get(setup, INK)
        spread = [[[e["value"] - e["low"]], [e["high"] - e["value"]]] for e in (x, y)]
        look: dict[str, Any] = {"color": colour, "marker": MARKERS.get(setup, "^"), "markersize": 9, "capsize": 3, "linewidth": 1.4}
        axes.errorbar(x["value"], y["value"], xerr=np.abs(spread[0]), yerr=np.abs(spread[1]), **look)
        at = (x["value"], y["value"])
        axes.annotate(_short(setup, 24), at, (10, 9), textcoords="offset points", color=colour, fontweight="bold")
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlabel("likeness to the pictures: share of other setups beaten →")
    axes.set_ylabel("likeness to the text: share of other setups beaten →")
    people, answers = study["people"], sum(study["answers"].values())
    title = f"{answers} answer{'' if answers == 1 else 's'} of {people} {'person' if people == 1 else 'people'}, mean with 95 % interval"
    axes.set_title(title, fontsize=10, loc="left")


def draw_per_brief(path: Path, prompts: Mapping[str, Mapping[str, list[float]]]) -> None:
    """Editability of each prompt as a mean over its concepts, one marker a setup; `prompts` has the values {prompt: {setup: …}}."""
    shown = list(prompts)[:PROMPTS]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.6 + 0.42 * max(len(shown), 2)), layout="constrained")
        axes = figure.add_subplot()
        for name in SETUPS if shown else ():
            places = [place for place, prompt in enumerate(shown) if prompts[prompt][name]]  # none of words without pictures
            means = [np.mean(prompts[shown[place]][name]) for place in places]
            axes.scatter(means, places, s=52, color=COLOURS[name], marker=MARKERS[name], label=name, zorder=3)
        axes.set_yticks(range(len(shown)), [_short(prompt) for prompt in shown])
        axes.set_ylim(max(len(shown), 1) - 0.5, -0.5)
        axes.set_xlabel("editability: faithfulness to the prompt, by CLIP →")
        if shown:
            figure.legend(loc="outside upper left", ncols=3, frameon=False)
        else:
            _say_nothing(axes)
        if len(prompts) > len(shown):
            axes.set_title(f"the first {len(shown)} of {len(prompts)} prompts; all are in per_brief.csv", fontsize=9, loc="left")
        _save(figure, path)


def _mean_point(axes: Axes, name: str, metrics: dict[str, Any]) -> None:
    before = "" if name == LEARNT else f"{name.replace(' ', '_')}_"
    x, y = metrics[f"{before}reconstruction"], metrics[f"{before}editability"]
    spread = [
        [[value - metrics[f"{before}{measure}_low"]], [metrics[f"{before}{measure}_high"] - value]]
        for measure, value in (("reconstruction", x), ("editability", y))
    ]
    look: dict[str, Any] = {"color": COLOURS[name], "marker": MARKERS[name], "markersize": 9, "capsize": 3, "linewidth": 1.4}
    axes.errorbar(x, y, xerr=np.abs(spread[0]), yerr=np.abs(spread[1]), **look)
    axes.annotate(name, (x, y), (10, 9), textcoords="offset points", color=COLOURS[name], fontweight="bold")
    if name == PICTURES:
        axes.axvline(x, color=COLOURS[name], linewidth=0.9, linestyle=(0, (5, 4)))
    if name == PROMPT:
        axes.axhline(y, color=COLOURS[name], linewidth=0.9, linestyle=(0, (5, 4)))


def _say_nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "no concept has been evaluated", transform=axes.transAxes, ha="center", va="center")


def _short(text: str, letters: int = 60) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasSVG(figure)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
