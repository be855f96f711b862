"""The learnt word on its page: for each tool that can use it the very files that `ti-pipeline export` writes, and what to do with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ti_pipeline.files import atomic, write_text
from ti_pipeline.gallery.pictures import carried
from ti_pipeline.words.export import Export
from ti_pipeline.words.sharing import shared
from ti_pipeline.words.tools import Tool

FOLDER = "word"


@dataclass(frozen=True)
class Offer:
    """What a tool is given: its `files` by the names that they have there, with where each lies beside the page.

    `takes` are those that one click downloads, `beside` the others. `line` is what to copy, `typed` what stands in a prompt.
    """

    tool: Tool
    line: str
    typed: str
    files: Mapping[str, str]

    @property
    def takes(self) -> dict[str, str]:
        """All of a folder, else the weights alone: that is what a tool needs."""
        return {name: place for name, place in self.files.items() if self.tool.repository or name.endswith(".safetensors")}

    @property
    def beside(self) -> dict[str, str]:
        return {name: place for name, place in self.files.items() if name not in self.takes}

    def to_json(self) -> dict[str, Any]:
        return {"tool": self.tool.name, "line": self.line, "typed": self.typed, "files": dict(self.files)}


def hang_word(export: Export, folder: Path) -> list[Offer]:
    """Write the files of every tool that can use the word, each with a script that carries its bytes."""
    files, places = shared({tool.name: export.files(tool) for tool in export.tools})
    for name, content in files.items():
        place = f"{FOLDER}/{name}"
        with atomic(folder / place) as temporary:
            temporary.write_bytes(content)
        write_text(folder / carrier(place), carried(place, content))
    return [
        Offer(
            tool, export.line(tool), export.typed(tool), {name: f"{FOLDER}/{place}" for name, place in places[tool.name].items()}
        )
        for tool in export.tools
    ]  # fmt: skip


def carrier(place: str) -> str:
    """A page from a folder may run a script beside it, but not read a file."""
    return f"{place}.js"
