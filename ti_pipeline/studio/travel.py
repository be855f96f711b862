"""Words and pages on their way between a workspace and other places, as `Studio` has them: to other tools, in from them, to readers."""

from __future__ import annotations

import shutil
from pathlib import Path

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ParamsError
from ti_pipeline.models import Models
from ti_pipeline.params import Params
from ti_pipeline.words.export import export_of, write_export
from ti_pipeline.words.incoming import bring_in, located, words_at
from ti_pipeline.words.names import names_for
from ti_pipeline.words.tools import TOOLS
from ti_pipeline.workspace import Workspace


def take_away(workspace: Workspace, concept: str, folder: Path, tool: str | None = None) -> dict[str, str]:
    """Write a concept's word for a tool, or for each that can use it, to `folder/TOOL`. Returns by tool the lines that load it, or what
    is typed there. Raises ParamsError, and ConceptError for a tool that cannot use it."""
    if tool and tool not in TOOLS:
        raise ParamsError(f"{tool}: there is no such tool here. There are {', '.join(TOOLS)}.")
    export = export_of(workspace, read_manifest(workspace, concept), names_for([concept])[concept])
    chosen = [TOOLS[tool]] if tool else export.tools
    for each in chosen:
        write_export(export, each, folder / each.name)
    return {each.name: export.line(each) for each in chosen}


def take_in(workspace: Workspace, params: Params, source: str, concept: str, replace: bool = False) -> None:
    """Make a concept of the one word in a file, a folder or a repository on the hub. Raises ParamsError and ConceptError."""
    found = located(source)
    if len(words := words_at(found.path)) > 1:
        names = ", ".join(sorted(word.name for word in words))
        raise ParamsError(f"{source} has {len(words)} words: {names}. `ti-pipeline import {source} --word` takes one of them.")
    bring_in(workspace, Models(params, workspace.root).reader, words[0], concept, found, replace)


def show_at(workspace: Workspace, folder: Path) -> Path:
    """Copy the gallery to a folder; returns its overview there."""
    if folder.exists() and not folder.is_dir():
        raise ParamsError(f"{folder} is a file. Give a folder for the gallery.")
    shutil.copytree(workspace.galleries, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "_reasons"))
    return folder / "index.html"
