"""How often people and CLIP agree about the candidates of a brief."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from ti_pipeline.choices.verdicts import ID, read_verdicts
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import read_table
from ti_pipeline.workspace import Workspace

RESAMPLES = 10_000


def agreement(workspace: Workspace, concepts: list[str], best: int) -> dict[str, Any]:
    """What `rankings/agreement.json` says.

    `share`: of all picks, those among CLIP's best `best` of their brief; `by_chance`: what picks at random would give.
    `tau`: Kendall's τ-b (1945; ties counted) of people's opinion with CLIP's order, a mean over the briefs in which people
    made a difference, with a 95 % percentile bootstrap interval over those briefs.
    """
    picked: list[bool] = []
    expected: list[float] = []
    taus: list[float] = []
    rows: list[dict[str, Any]] = []
    for concept in concepts:
        try:
            verdicts = read_verdicts(workspace, concept)
        except ConceptError:
            continue  # its own outcome says so
        if not verdicts or not workspace.ranking(concept).is_file():
            continue
        ranked = sorted(read_table(workspace.ranking(concept)), key=lambda row: row["brief_index"])
        own_picked: list[bool] = []
        own_taus: list[float] = []
        for _, group in groupby(ranked, key=lambda row: row["brief_index"]):
            brief = _by_clip(list(group))
            said = [verdicts.get(row["digest"][:ID]) for row in brief]
            own_picked += [place < best for place, verdict in enumerate(said) if verdict and verdict.picked]
            expected += [min(1.0, best / len(brief))] * sum(verdict is not None and verdict.picked for verdict in said)
            opinions = [verdict.liking if verdict else 0.0 for verdict in said]
            if len(set(opinions)) > 1:
                own_taus.append(float(kendalltau(opinions, -np.arange(len(brief))).statistic))
        rows.append({"concept": concept, "picks": len(own_picked), "share": _mean(own_picked), "tau": _mean(own_taus)})
        picked, taus = picked + own_picked, taus + own_taus
    report: dict[str, Any] = {
        "best": best, "picks": len(picked), "share": _mean(picked), "by_chance": _mean(expected),
        "briefs": len(taus), "tau": _mean(taus), "concepts": rows,
    }  # fmt: skip
    if len(taus) > 1:
        drawn = np.random.default_rng(0).choice(taus, (RESAMPLES, len(taus))).mean(axis=1)
        report |= {"tau_low": round(float(np.quantile(drawn, 0.025)), 4), "tau_high": round(float(np.quantile(drawn, 0.975)), 4)}
    return report


def told(report: dict[str, Any]) -> str:
    """The report in words."""
    if not report["picks"] and report["tau"] is None:
        return "Nobody has picked any of these candidates yet."
    parts = []
    if report["picks"]:
        parts.append(
            f"{report['share']:.0%} of {report['picks']} picks are among CLIP's best {report['best']} (by chance {report['by_chance']:.0%})"
        )
    if report["tau"] is not None:
        interval = f" ({report['tau_low']:.2f} to {report['tau_high']:.2f})" if "tau_low" in report else ""
        parts.append(
            f"rank correlation τ = {report['tau']:.2f}{interval} over {report['briefs']} brief{'' if report['briefs'] == 1 else 's'}"
        )
    return f"People and CLIP: {'; '.join(parts)}."


def _by_clip(rows: list[dict]) -> list[dict]:
    """CLIP's own order: the distinct by their score, then near-duplicates."""
    return sorted(rows, key=lambda row: (row["duplicate_of"] is not None, row["place_before"]))


def _mean(values: list[float] | list[bool]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None
