"""Words to other tools, many at a time: one that cannot go is said, and the others go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.words.export import Export, export_of, write_export
from ti_pipeline.words.names import PATTERN, check_apart, names_for
from ti_pipeline.words.tools import TOOLS, Tool
from ti_pipeline.workspace import Workspace


@dataclass(frozen=True)
class Destination:
    """Where words go: below `folder`, `apart` for each tool, to one tool or, with None, to every one that can use the word.

    `names` is the pattern of what they are called there; `pictures` gives away the reference pictures, and what their files are called.
    """

    folder: Path
    apart: bool = True
    tool: Tool | None = None
    names: str = PATTERN
    pictures: bool = False

    def tools(self, export: Export) -> list[Tool]:
        return [self.tool] if self.tool else export.tools

    def of(self, tool: Tool) -> Path:
        return self.folder / tool.name if self.apart else self.folder


@dataclass(frozen=True)
class Sent:
    """A word that is there: `path` is its file or folder, `files` all of its files."""

    export: Export
    tool: Tool
    path: Path
    files: list[Path]

    @property
    def concept(self) -> str:
        return self.export.about.get("concept", self.export.name)

    def __str__(self) -> str:
        return f"{self.path}: {self.tool.title}, write {self.export.typed(self.tool)}"


def send(workspace: Workspace, concepts: Iterable[str], destination: Destination) -> Iterator[Sent | ConceptError]:
    """Write the words of the concepts, and yield each that is there, or why it is not. Raises ParamsError for names that do not go."""
    exports = []
    for concept, name in names_for(concepts, destination.names).items():
        try:
            exports.append(export_of(workspace, read_manifest(workspace, concept), name, destination.pictures))
        except ConceptError as error:
            yield error
    if destination.tool in (None, TOOLS["kohya"]):
        check_apart({export.name: len(export) for export in exports})
    for export in exports:
        for tool in destination.tools(export):
            try:
                folder = destination.of(tool)
                files = write_export(export, tool, folder)
                yield Sent(export, tool, folder / (export.name if tool.repository else export.file), files)
            except ConceptError as error:
                yield error
