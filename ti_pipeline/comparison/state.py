"""Whether a comparison stands, and what is to be said of a concept in it."""

from __future__ import annotations

import json
from pathlib import Path

from ti_pipeline.comparison.arms import arms
from ti_pipeline.comparison.cells import FAILED, Files, Wanted
from ti_pipeline.files import digest_value
from ti_pipeline.params import Params
from ti_pipeline.workspace import Outcome, State, Workspace

VERSION = 1  # of the report


def metrics_path(workspace: Workspace) -> Path:
    """Written last; where nothing is compared, the only file."""
    return workspace.comparison / "metrics.json"


def details_path(workspace: Workspace) -> Path:
    """All figures with their intervals."""
    return workspace.comparison / "details.json"


def comparison_fingerprint(params: Params) -> str:
    """What the report depends on beside the cells."""
    named = [(arm.name, arm.changes) for arm in arms(params)]
    sections = params.compare.model_dump(mode="json", exclude={"batch_size"})
    return digest_value({"version": VERSION, "arms": named, "compare": sections, "train": params.train.decisive()}) if named else ""


def stands(workspace: Workspace, fingerprint: str) -> bool:
    """Whether the report is one of this comparison."""
    if not fingerprint:
        return metrics_path(workspace).is_file() and not details_path(workspace).exists()
    try:
        details = json.loads(details_path(workspace).read_text(encoding="utf-8"))
        return metrics_path(workspace).is_file() and details["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError, TypeError):
        return False


def outcome(files: Files, order: Wanted, state: State, seconds: float = 0.0) -> Outcome:
    """Of a concept whose cells all stand: failed where not one of its words could be learnt, else with what was left out."""
    said = [(cell, why) for cell in order.cells if cell.lesson and (why := (files.read(cell) or {}).get(FAILED))]
    whys = [f"{cell.arm}, seed {cell.seed}: {why}" for cell, why in said] + [f"{arm}: {why}" for arm, why in order.left_out.items()]
    none = bool(said) and len(said) == sum(cell.lesson is not None for cell in order.cells)
    path = files.folder / order.manifest.slug
    return Outcome("compare", order.manifest.slug, "failed" if none else state, seconds, "; ".join(whys), str(path) if order.cells else "")


def told(workspace: Workspace, params: Params) -> str:
    """Where the report is, or what to do so that there is one."""
    if not arms(params):
        return "Nothing is compared: compare.setups and compare.sweeps are empty. docs/comparison.md says how to fill them."
    return f"The report: {workspace.comparison / 'report.html'}"
