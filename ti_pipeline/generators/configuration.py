"""Configurations that their authors published, for single files, which have weights alone. They ship with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

Configuration = dict[str, dict[str, Any]]  # by part
SCHEDULER = "scheduler"


def published(name: str) -> Configuration:
    """That of a model, by the name of its file in `configurations/`."""
    return json.loads((resources.files(__package__) / "configurations" / f"{name}.json").read_text(encoding="utf-8"))


def write_parts(parts: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
    """Write it in diffusers' layout."""
    for part, config in parts.items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        file = "scheduler_config.json" if part == SCHEDULER else "config.json"
        (folder / part / file).write_text(json.dumps(config), encoding="utf-8")


def write_clip_tokenizer(folder: Path, pad: str | None = None) -> None:
    """OpenAI CLIP's; `pad` is the piece that fills a prompt up, where it is not the one that ends it."""
    from ti_pipeline.generators.clip_tokenizer import clip_tokenizer

    tokenizer = clip_tokenizer()
    if pad:
        tokenizer.pad_token = pad
    tokenizer.save_pretrained(folder)
