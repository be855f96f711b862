"""All subjects of a protocol together, beside what its authors published: a page in Markdown, a table, and the figures as JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ti_pipeline.evaluation.metrics import DECIMALS, mean_estimate
from ti_pipeline.evaluation.protocols.protocol import MEASURES, Protocol
from ti_pipeline.files import atomic, write_json, write_text

RESAMPLES = 10_000
NAMES = {"dino": "DINO", "clip_i": "CLIP-I", "clip_t": "CLIP-T"}


def write_tables(folder: Path, protocol: Protocol, reports: Sequence[Mapping[str, Any]]) -> Path:
    """`subjects.csv`, `metrics.json` and, last, `table.md`, whose path is returned. Reports that were measured otherwise than most are for
    the caller to leave out."""
    with atomic(folder / "subjects.csv") as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("concept", *MEASURES, "real_dino", "real_clip_i", "prompts", "samples", "pictures"))
        for report in reports:
            values = [report["measures"][name] for name in MEASURES] + [report["real"].get(name) for name in MEASURES[:2]]
            writer.writerow((report["concept"], *values, report["prompts"], report["samples"], report["pictures"]))
    metrics = _metrics(reports)
    write_json(folder / "metrics.json", metrics)
    path = folder / "table.md"
    write_text(path, "\n".join(_page(protocol, reports, metrics)) + "\n")
    return path


def _metrics(reports: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """Means over the subjects; intervals say what other subjects would have given."""
    metrics: dict[str, float | int] = {"subjects": len(reports)}
    rng = np.random.default_rng(0)
    for whose in ("measures", "real"):
        for name in MEASURES:
            values = [report[whose][name] for report in reports if name in report[whose]]
            if values:
                mean, key = mean_estimate(np.array(values), RESAMPLES, rng), name if whose == "measures" else f"real_{name}"
                metrics |= {key: round(mean.value, DECIMALS), f"{key}_low": round(mean.low, DECIMALS)}
                metrics[f"{key}_high"] = round(mean.high, DECIMALS)
    return metrics


def _page(protocol: Protocol, reports: Sequence[Mapping[str, Any]], metrics: Mapping[str, float | int]) -> Iterator[str]:
    yield f"# {protocol.name}"
    yield ""
    yield f"{protocol.source}."
    yield ""
    scale = "" if protocol.text_scale == 1 else f" × {protocol.text_scale:g}"
    yield f"| Method | Drawn and measured by | {' | '.join(NAMES[name] + (scale if name == 'clip_t' else '') for name in MEASURES)} |"
    yield "|---|---|---|---|---|"
    if reports:
        by = reports[0]["by"]
        drawn = f"{by['generator']} at {by['resolution']} px; judge {by['judge']}, CLIP {by['clip']}"
        yield _row("**learnt here**", drawn, {name: _interval(metrics, name) for name in MEASURES})
        yield _row("real images", drawn, {name: _interval(metrics, f"real_{name}") for name in MEASURES})
    for row in protocol.published:
        yield _row(row.method, row.by, {name: f"{value:.3f}" for name, value in row.measures.items()})
    yield ""
    yield from (f"- {note}" for note in _notes(protocol, reports))


def _notes(protocol: Protocol, reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "Only numbers of the same generator, resolution, judge and CLIP compare."
    yield f"Published rows: measured by {protocol.backbones}; sampling: {protocol.sampling}."
    yield "DINO and CLIP-I are mean cosines over all pairs of a sample and a picture of the set; of real images no picture with itself."
    cosine = "the cosine" if protocol.text_scale == 1 else f"{protocol.text_scale:g} · max(cosine, 0)"
    yield f"CLIP-T is the mean of {cosine} of a sample and its prompt, in which the class words stand for the learnt word."
    yield from protocol.apart
    if not reports:
        yield "No concept has been measured yet."
        return
    by = reports[0]["by"]
    counts = sorted({report["prompts"] * report["samples"] for report in reports})
    pictures = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    yield (
        f"Learnt here: {len(reports)} concepts, {pictures} samples of each; {by['solver']}, {by['steps']} steps, guidance "
        f"{by['guidance_scale']:g}. In brackets: 95 % of resampled sets of concepts."
    )
    if any(report["samples"] != protocol.samples for report in reports):
        yield f"The protocol draws {protocol.samples} samples of a prompt; `protocol.samples` says otherwise here."
    if unnamed := sum(len(report["unnamed"]) for report in reports):
        yield f"{unnamed} prompts do not name the subject, and were drawn as they are."


def _interval(metrics: Mapping[str, float | int], key: str) -> str:
    if key not in metrics:
        return ""
    return f"{metrics[key]:.3f} ({metrics[f'{key}_low']:.3f} to {metrics[f'{key}_high']:.3f})"


def _row(method: str, by: str, measures: Mapping[str, str]) -> str:
    return f"| {method} | {by} | {' | '.join(measures.get(name, '') or '–' for name in MEASURES)} |"
