"""What is written of one concept's evaluation, and the rules that its numbers follow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ti_pipeline.workspace import Workspace

LEARNT, PICTURES, PROMPT = "textual inversion", "image only", "prompt only"
SETUPS = (LEARNT, PICTURES, PROMPT)

RULES = {
    "reconstruction": "mean pairwise cosine, by the judge, between fresh samples of the neutral prompt and the accepted pictures",
    "editability": "cosine of the samples' average embedding with that of the prompt with the placeholder left out (the paper's rule)",
    "editability_per_sample": "mean of each sample's cosine with that text (the published code's rule)",
    "why_clip": "the judge reads no text, so editability is measured with the ranker's CLIP",
    PICTURES: "the accepted pictures are the samples; no picture is compared with itself",
    PROMPT: "no learnt word: the placeholder is left out of the prompt; for reconstruction the initializer stands in its place",
    "gain_percent": "how far reconstruction rises from the initializer word (0) to the pictures themselves (100)",
    "clip_likeness": "the ranker's likeness to the accepted pictures of what the initializer word draws, and of the pictures to each other",
    "interval": "95 %, percentile bootstrap over the samples; the pictures of the set stay as they are",
}


def concept_path(workspace: Workspace, concept: str) -> Path:
    return workspace.evaluation / "concepts" / f"{concept}.json"


def pictures_folder(workspace: Workspace, concept: str) -> Path:
    """A few samples of each setup and prompt, for the questionnaire; the report names them."""
    return workspace.evaluation / "pictures" / concept


def read_report(path: Path) -> dict[str, Any] | None:
    """A concept's report; None when there is none or it cannot be read, and so has to be written again."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None
