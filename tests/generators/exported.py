"""A written word as it leaves for diffusers."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline.words.export import Export, read_rows
from ti_pipeline.words.tools import TOOLS


def lines_of(path: Path, token: str) -> str:
    """The lines that put a word into diffusers' stock pipeline; the file that they load is written beside it."""
    rows, about = read_rows(path, "x")
    export = Export(str(path.with_name("ti-x")), token, "object", rows, about)
    Path(export.file).write_bytes(export.weights(TOOLS["diffusers"]))
    return export.line(TOOLS["diffusers"])
