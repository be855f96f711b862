"""The figures, as SVG with equal bytes for equal numbers: readable in grey, by the colour-blind, and without a legend."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ti_pipeline.comparison.arms import swept
from ti_pipeline.comparison.report.labels import NEAR, Box, place, spread
from ti_pipeline.comparison.results import REFERENCES, Results
from ti_pipeline.evaluation.metrics import Estimate
from ti_pipeline.evaluation.plots import COLOURS, STYLE
from ti_pipeline.evaluation.report import LEARNT, PICTURES, PROMPT

# Dark enough on white, apart for the colour-blind; together with the markers no two of 70 arms look alike, in grey neither.
PALETTE = ("#c1440e", "#00806a", "#8a3ba0", "#1f88b5", "#96700c", "#b0256b", "#54616e")
SHAPES = ("s", "D", "^", "v", "P", "X", "<", ">", "p", "h")
LIKENESS = "reconstruction: likeness to the concept, by the judge →"
FAITHFULNESS = "editability: faithfulness to the prompt, by CLIP →"
SIZE = 8.5  # points of a name
LONGEST = 34  # letters of a name


def look(results: Results, name: str) -> tuple[str, str]:
    """Colour and marker of an arm; those of a sweep share them."""
    if name == results.baseline:
        return COLOURS[LEARNT], "o"
    groups = [*results.section.setups, *results.section.sweeps]
    of_sweep = {arm: title for title, sweep in results.section.sweeps.items() for arm, _ in swept(title, sweep)}
    number = groups.index(of_sweep.get(name, name))
    return PALETTE[number % len(PALETTE)], SHAPES[number % len(SHAPES)]


def scatter(results: Results) -> str:
    """Reconstruction against editability: a point with its 95 % intervals for each arm, between the two references."""
    means = {name: (results.mean(name, "reconstruction"), results.mean(name, "editability")) for name in results.names}
    drawn = {name: (x, y) for name, (x, y) in means.items() if x and y and name not in REFERENCES}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.4), dpi=100)
        axes = figure.add_axes((0.085, 0.105, 0.895, 0.86))
        axes.set_xlabel(LIKENESS)
        axes.set_ylabel(FAITHFULNESS)
        if not drawn:
            axes.text(0.5, 0.5, "nothing has been measured yet", transform=axes.transAxes, ha="center", va="center")
            return _svg(figure)
        _frame(axes, [pair[0] for pair in drawn.values()], [pair[1] for pair in drawn.values()])
        _brackets(axes, means)
        for title, sweep in results.section.sweeps.items():
            way = [drawn[arm] for arm, _ in swept(title, sweep) if arm in drawn]
            colour = look(results, next(swept(title, sweep))[0])[0]
            axes.plot([x.value for x, _ in way], [y.value for _, y in way], color=colour, linewidth=0.9, alpha=0.5, zorder=2)
        for name, (x, y) in drawn.items():
            colour, marker = look(results, name)
            axes.plot([x.low, x.high], [y.value] * 2, color=colour, linewidth=1.3, alpha=0.55, solid_capstyle="butt", zorder=2)
            axes.plot([x.value] * 2, [y.low, y.high], color=colour, linewidth=1.3, alpha=0.55, solid_capstyle="butt", zorder=2)
            size = 10 if name == results.baseline else 8
            axes.plot(x.value, y.value, marker, color=colour, markersize=size, markeredgecolor="white", markeredgewidth=0.9, zorder=4)
        _name_points(figure, axes, drawn, results)
        return _svg(figure)


def _frame(axes: Axes, xs: Sequence[Estimate], ys: Sequence[Estimate]) -> None:
    """Limits with room for names, around what is drawn with its intervals."""
    for values, limit in ((xs, axes.set_xlim), (ys, axes.set_ylim)):
        low, high = min(value.low for value in values), max(value.high for value in values)
        room = 0.09 * (high - low or 0.02)
        limit(low - room, high + room)


def _brackets(axes: Axes, means: dict[str, tuple[Estimate | None, Estimate | None]]) -> None:
    """The references as lines; an arrow and the number say where one lies that is far away."""
    alike, faithful = means[PICTURES][0], means[PROMPT][1]
    style: dict[str, Any] = {"linewidth": 1, "linestyle": (0, (5, 4)), "zorder": 1}
    small: dict[str, Any] = {"fontsize": SIZE, "zorder": 5}
    if alike:
        _bracket_x(axes, alike.value, PICTURES, style, small)
    if faithful:
        low, high = axes.get_ylim()
        inside, text = low < faithful.value < high, f"{PROMPT}: {faithful.value:.3f}"
        at = (0.995, faithful.value if inside else high if faithful.value >= high else low)
        arrow = "" if inside else " ↑" if faithful.value >= high else " ↓"
        if inside:
            axes.axhline(faithful.value, color=COLOURS[PROMPT], **style)
        under = not inside and faithful.value >= high
        how: dict[str, Any] = {"xytext": (0, -4 if under else 4), "textcoords": "offset points", "va": "top" if under else "bottom"}
        axes.annotate(text + arrow, at, xycoords=axes.get_yaxis_transform(), ha="right", color=COLOURS[PROMPT], **how, **small)


def _bracket_x(axes: Axes, value: float, name: str, style: dict[str, Any], small: dict[str, Any]) -> None:
    low, high = axes.get_xlim()
    inside = low < value < high
    if inside:
        axes.axvline(value, color=COLOURS[name], **style)
    at = (value if inside else high if value >= high else low, 0.012)
    text = f"{name}: {value:.3f}{'' if inside else ' →' if value >= high else ' ←'}"
    left = value < high - 0.25 * (high - low)
    how: dict[str, Any] = {"xytext": (4 if left else -4, 0), "textcoords": "offset points", "ha": "left" if left else "right"}
    axes.annotate(text, at, xycoords=axes.get_xaxis_transform(), va="bottom", color=COLOURS[name], **how, **small)


def _name_points(figure: Figure, axes: Axes, drawn: dict[str, tuple[Estimate, Estimate]], results: Results) -> None:
    canvas = FigureCanvasAgg(figure)
    renderer, to_pixels = canvas.get_renderer(), axes.transData.transform
    points = [(float(across), float(up)) for across, up in (to_pixels((x.value, y.value)) for x, y in drawn.values())]
    bars = []
    for x, y in drawn.values():
        (left, middle), (right, _) = to_pixels((x.low, y.value)), to_pixels((x.high, y.value))
        (centre, bottom), (_, top) = to_pixels((x.value, y.low)), to_pixels((x.value, y.high))
        bars += [Box(left, middle - 1.5, right, middle + 1.5), Box(centre - 1.5, bottom, centre + 1.5, top)]
    sizes = []
    for name in drawn:
        text = axes.text(0, 0, short(name), fontsize=SIZE, fontweight="bold" if name == results.baseline else "normal")
        extent = text.get_window_extent(renderer)
        sizes.append((extent.width, extent.height))
        text.remove()
    frame, *taken = (Box(*part.get_window_extent(renderer).extents) for part in (axes, *axes.texts))
    boxes = place(points, sizes, bars, frame, taken)
    back = axes.transData.inverted().transform
    for name, point, box in zip(drawn, points, boxes, strict=True):
        colour = look(results, name)[0]
        u, v = min(max(point[0], box.left), box.right), min(max(point[1], box.bottom), box.top)
        if math.hypot(point[0] - u, point[1] - v) > NEAR:
            axes.plot(*zip(back((u, v)), back(point), strict=True), color=colour, linewidth=0.6, alpha=0.6, zorder=3)
        weight = "bold" if name == results.baseline else "normal"
        left, bottom = map(float, back((box.left, box.bottom)))
        axes.text(left, bottom, short(name), fontsize=SIZE, fontweight=weight, color=colour, va="bottom", zorder=6)


def curves(results: Results) -> str:
    """Both measures over the steps, a line for each arm with its name at its end; empty where no curve was measured."""
    found = {arm.name: curve for arm in results.arms if (curve := results.curve(arm.name))}
    if not found:
        return ""
    panels = [("reconstruction", LIKENESS)]
    if any(point["editability"] for curve in found.values() for point in curve):
        panels.append(("editability", FAITHFULNESS))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6 * len(panels), max(4.2, 0.2 * len(found) + 1.4)), dpi=100)
        for number, (measure, label) in enumerate(panels):
            axes = figure.add_axes(((number + 0.11) / len(panels), 0.12, 0.6 / len(panels), 0.84))
            _draw_curves(axes, results, {name: [p for p in curve if p[measure]] for name, curve in found.items()}, measure)
            axes.set_xlabel("steps")
            axes.set_ylabel(label)
        return _svg(figure)


def _draw_curves(axes: Axes, results: Results, found: dict[str, list[dict[str, Any]]], measure: str) -> None:
    ends = {}
    for name, curve in found.items():
        if not curve:
            continue
        colour, marker = look(results, name)
        steps, values = [point["step"] for point in curve], [point[measure].value for point in curve]
        width = 2.2 if name == results.baseline else 1.2
        axes.plot(steps, values, color=colour, marker=marker, markersize=4.5, linewidth=width, markeredgewidth=0)
        if name == results.baseline:
            lows, highs = [point[measure].low for point in curve], [point[measure].high for point in curve]
            axes.fill_between(steps, lows, highs, color=colour, alpha=0.1, linewidth=0)
        ends[name] = (steps[-1], values[-1])
    axes.margins(x=0.03)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    inches = axes.get_position().height * axes.figure.get_size_inches()[1]  # type: ignore[union-attr]
    places = spread([y for _, y in ends.values()], (high - low) * 0.165 / inches, low, high)
    right = axes.get_xlim()[1]
    for (name, (x, y)), at in zip(ends.items(), places, strict=True):
        colour, weight = look(results, name)[0], "bold" if name == results.baseline else "normal"
        how: dict[str, Any] = {"xytext": (14, 0), "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(short(name, 26), (right, at), va="center", fontsize=SIZE, color=colour, fontweight=weight, **how)
        axes.plot([x, right + 0.02 * (right - axes.get_xlim()[0])], [y, at], color=colour, linewidth=0.6, alpha=0.5, clip_on=False)


def sweeps(results: Results) -> str:
    """A row for each sweep: both measures over the values, and where the baseline is."""
    rows = results.section.sweeps
    if not rows or not results.orders:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.5 * len(rows)), dpi=100, layout="constrained")
        grid = figure.subplots(len(rows), 2, squeeze=False)
        for (title, sweep), row in zip(rows.items(), grid, strict=True):
            names = [name for name, _ in swept(title, sweep)]
            for axes, measure in zip(row, ("reconstruction", "editability"), strict=True):
                _draw_sweep(axes, results, sweep.values, [results.mean(name, measure) for name in names], look(results, names[0]))
                if base := results.mean(results.baseline, measure):
                    axes.axhline(base.value, color=COLOURS[LEARNT], linewidth=1, linestyle=(0, (5, 4)))
                    how: dict[str, Any] = {"xytext": (-2, 3), "textcoords": "offset points", "ha": "right", "fontsize": SIZE}
                    at = (1, base.value)
                    axes.annotate(short(results.baseline), at, xycoords=axes.get_yaxis_transform(), color=COLOURS[LEARNT], **how)
                axes.set_xlabel(short(title))
                axes.set_ylabel(measure)
        return _svg(figure)


def _draw_sweep(axes: Axes, results: Results, values: Sequence[Any], means: Sequence[Estimate | None], how: tuple[str, str]) -> None:
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    at = [float(value) for value in values] if numbers else [float(i) for i in range(len(values))]
    there = sorted((x, mean) for x, mean in zip(at, means, strict=True) if mean)
    xs = [x for x, _ in there]
    axes.fill_between(xs, [m.low for _, m in there], [m.high for _, m in there], color=how[0], alpha=0.14, linewidth=0)
    axes.plot(xs, [m.value for _, m in there], color=how[0], marker=how[1], markersize=6, linewidth=1.5, markeredgecolor="white")
    if numbers and min(at) > 0 and max(at) / min(at) >= 10:
        axes.set_xscale("log")
    axes.set_xticks(at, [f"{value}" for value in values])
    axes.minorticks_off()


def short(text: str, letters: int = LONGEST) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _svg(figure: Figure) -> str:
    FigureCanvasSVG(figure)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
