"""Half-written files of processes that were killed. DVC would take them for a part of the stage's output."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.stages.turns import OVERVIEW, turn
from ti_pipeline.workspace import SLUG, Workspace

if TYPE_CHECKING:
    from ti_pipeline.stages.stage import Stage

_TEMPORARY = re.compile(r"\.(?P<of>.+)-(?:[a-z0-9_]{8}|new)(?:\.[a-z0-9]+)?")  # as `files.atomic` and the embedding's writer name them


def sweep(workspace: Workspace, stage: Stage, names: Collection[str] | None) -> None:
    """Remove what nobody can be writing any more: who still does has its turn at that concept, and is passed over.

    With `names` only their folders are looked into, and what lies in none.
    """
    found = defaultdict(list)
    for path, whose in _temporaries(workspace, stage, names):
        found[whose].append(path)
    for whose, paths in found.items():
        with turn(workspace, stage.name, whose, wait=False) as mine:
            for path in paths if mine else ():
                path.unlink(missing_ok=True)


def _temporaries(workspace: Workspace, stage: Stage, names: Collection[str] | None) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every one with the names whose turn it takes to write it."""
    output = stage.folder(workspace)
    homes = {(output / place).parent for place in stage.places if not Path(place).suffix}  # that hold a folder for each concept
    for folder, below, files in os.walk(output):
        here = Path(folder)
        if names is not None and here in homes:
            below[:] = [name for name in below if name in names or not SLUG.fullmatch(name)]
        concept = next((place.name for place in (here, *here.parents) if place.parent in homes and SLUG.fullmatch(place.name)), "")
        for name in files:
            if half := _TEMPORARY.fullmatch(name):
                yield here / name, (concept,) if concept else (half["of"], OVERVIEW)
    for scratch in stage.scratch:
        for path in (workspace.artifacts / scratch).glob(".*"):
            if half := _TEMPORARY.fullmatch(path.name):
                yield path, (half["of"],)
        for path in (workspace.artifacts / scratch).glob("*/.*"):
            if _TEMPORARY.fullmatch(path.name):
                yield path, (path.parent.name,)
