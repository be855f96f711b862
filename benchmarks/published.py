"""Configurations of published models at full width: those that ship for single files, and what others of their kind have of their own."""

from __future__ import annotations

import json
from pathlib import Path

from ti_pipeline.generators.configuration import Configuration, published

MODELS = Path(__file__).with_suffix(".json")


def configuration_of(model: str) -> Configuration:
    """Of a model in `published.json`, by part. There `like` names the shipped configuration whose values count where it says nothing."""
    said = json.loads(MODELS.read_text(encoding="utf-8"))[model]
    shipped = published(said["like"]) if "like" in said else {}
    return {part: shipped.get(part, {}) | said.get(part, {}) for part in sorted((shipped.keys() | said.keys()) - {"like"})}
