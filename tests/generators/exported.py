"""A written word as it leaves for diffusers."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline.gallery.exhibit import read_word


def lines_of(path: Path, token: str) -> str:
    """The lines that put a word into diffusers' stock pipeline."""
    lines = read_word(path, "x").for_diffusers(str(path))
    assert token in path.read_bytes().decode(errors="ignore")
    return lines
