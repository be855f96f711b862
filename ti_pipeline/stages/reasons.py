"""Why a concept fell out of a stage, or what a stage left out of it: the last reason of each, kept for whoever looks later.

It lies in the stage's own output (`<output>/_reasons/`), so DVC records it and brings it back with the rest. No concept's name
begins with an underscore.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.files import digest_value, write_json
from ti_pipeline.workspace import SLUG, Outcome, Workspace

if TYPE_CHECKING:
    from ti_pipeline.stages.stage import Stage

FOLDER = "_reasons"
_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/:'\",;]+/)+(?=[^\s/])")  # of an absolute path, all but the last name


@dataclass(frozen=True)
class Reason:
    """`state` is failed or quarantined; done where the concept went on and something of it was left out."""

    stage: str
    concept: str
    state: str
    reason: str

    @property
    def ok(self) -> bool:
        return self.state == "done"

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


def keep(workspace: Workspace, output: str, outcome: Outcome) -> None:
    """Keep the reason of an outcome in its stage's output, or take away the last one when there is none any more.

    Equal reasons are equal bytes. An outcome that is up to date has to say again what it said when it was done, or that is forgotten.
    """
    if not outcome.reason:
        forget(workspace, output, outcome.concept)
        return
    state = "done" if outcome.ok else outcome.state
    reason = Reason(outcome.stage, outcome.concept, state, _without_places(workspace, outcome.reason))
    if last(workspace, output, outcome.concept) != reason:
        write_json(_path(workspace, output, outcome.concept), asdict(reason))


def forget(workspace: Workspace, output: str, concept: str) -> None:
    """Take away the last reason of a stage for a concept, if there is one."""
    _path(workspace, output, concept).unlink(missing_ok=True)


def last(workspace: Workspace, output: str, concept: str) -> Reason | None:
    """What the stage of that output said of the concept when it last ran; None when all was well."""
    return _read(_path(workspace, output, concept))


def before(workspace: Workspace, needs: Iterable[str], concept: str) -> Reason | None:
    """Why the concept cannot get to a stage: it fell out of one whose output the stage needs."""
    found = (last(workspace, output, concept) for output in needs)
    return next((reason for reason in found if reason and not reason.ok), None)


def read_all(workspace: Workspace, stages: Iterable[Stage]) -> dict[str, list[Reason]]:
    """The reasons of every concept, in the order of the stages; nothing of a stage behind one that the concept fell out of."""
    found: dict[str, list[Reason]] = {}
    outputs = {}
    for stage in stages:
        outputs[stage.name] = stage.output
        for reason in of_output(workspace, stage.output):
            of_concept = found.setdefault(reason.concept, [])
            if not any(outputs.get(earlier.stage) in stage.needs and not earlier.ok for earlier in of_concept):
                of_concept.append(reason)
    return {slug: [reason for reason in found[slug] if not _foretold(reason, found[slug])] for slug in sorted(found)}


def _foretold(reason: Reason, others: list[Reason]) -> bool:
    """Whether it only says beforehand what the stage that it is about has said itself meanwhile."""
    return reason.ok and any(reason.reason.startswith(f"{other.stage}: ") for other in others)


def of_output(workspace: Workspace, output: str) -> Iterator[Reason]:
    """What the stage of that output said of each concept that it last had something to say of."""
    for path in sorted((workspace.artifacts / output / FOLDER).glob("*.json")):
        if not path.name.startswith(".") and (reason := _read(path)):
            yield reason


def _path(workspace: Workspace, output: str, concept: str) -> Path:
    """A folder that is no concept yet for its name has its reason under the name's digest: it may hold any character."""
    name = concept if SLUG.fullmatch(concept) else f"_{digest_value(concept)[:16]}"
    return workspace.artifacts / output / FOLDER / f"{name}.json"


def _read(path: Path) -> Reason | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return Reason(**{field: str(said[field]) for field in ("stage", "concept", "state", "reason")})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _without_places(workspace: Workspace, text: str) -> str:
    """Paths as they are in every copy of the workspace: where it lies on this machine is nobody's business, and in no output."""
    for folder in (workspace.concepts, workspace.root):
        text = text.replace(f"{folder}/", "")
    return _PATH.sub("…/", text)
