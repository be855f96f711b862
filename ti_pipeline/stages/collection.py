"""Which concepts there are, and what is to go because its concept is gone.

A concept is withdrawn by taking its folder away. `validate` over the whole collection notices that and forgets it; every other
stage over the whole collection then removes what it had made of it. What people chose (`choices/`) is their work and stays.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from ti_pipeline.concepts.concept import discover
from ti_pipeline.errors import ParamsError
from ti_pipeline.stages.reasons import forget, of_output
from ti_pipeline.stages.turns import turn
from ti_pipeline.workspace import MANIFESTS, SLUG, Workspace

if TYPE_CHECKING:
    from ti_pipeline.stages.stage import Stage

log = logging.getLogger(__name__)
NAMED = 12  # in a message


def validated(workspace: Workspace) -> list[str]:
    """Slugs of those that have a manifest, sorted; of those in quarantine too."""
    return sorted(path.stem for path in (workspace.artifacts / MANIFESTS).glob("*.parquet") if not path.name.startswith("."))


def current(workspace: Workspace) -> set[str]:
    """The concepts of the collection as `validate` last saw it, those among them that it holds back. Nothing else is current,
    whatever lies in `artifacts/`."""
    return {*validated(workspace), *(reason.concept for reason in of_output(workspace, MANIFESTS))}


def present(workspace: Workspace) -> set[str]:
    """The concepts whose folder of pictures is there now, validated or not. What is learnt of any other is withdrawn.

    Raises ParamsError when the folder of concepts cannot be read or holds none.
    """
    concepts, errors = discover(workspace.concepts)
    return {concept.slug for concept in concepts} | {error.concept for error in errors}


def forget_gone(workspace: Workspace, stage: Stage, there: Collection[str], usable: Collection[str]) -> None:
    """Take away what the first stage has made and said of concepts that are not `there`; `usable` are those that have nothing wrong.

    Raises ParamsError, and takes nothing away, when this looks like another folder or an empty one rather than like a withdrawal.
    """
    known = current(workspace)
    gone = known - set(there)
    if gone and (not usable or (len(gone) > 1 and gone == known)):
        what = "no concept that can be used" if not usable else "other concepts only"
        raise ParamsError(
            f"concepts.folder: {workspace.concepts} holds {what}, and {_few(gone)} of this workspace would be withdrawn with all that "
            "was made of them. Is it the right folder, and is it mounted? For another collection give another --workspace; to withdraw "
            f"them all, delete {stage.folder(workspace)} first."
        )
    if gone:
        log.warning("%s: withdrawn, since there is no such folder in %s any more. %s", _few(gone), workspace.concepts, "Choices stay.")
    for slug in gone:
        remove(workspace, stage, slug)
        forget(workspace, stage.output, slug)


def remove_withdrawn(workspace: Workspace, stages: Iterable[Stage]) -> None:
    """Remove what stages have made of concepts that are neither current nor in the folder of concepts."""
    known = current(workspace)
    for stage in stages if known else ():
        left = {*stage.made(workspace), *(reason.concept for reason in of_output(workspace, stage.output))} - known
        for slug in sorted(slug for slug in left if not is_there(workspace, slug)):
            with turn(workspace, stage.name, [slug], wait=False) as mine:  # one that is being made goes with the next run
                if mine:
                    remove(workspace, stage, slug)
                    forget(workspace, stage.output, slug)
        if stage.withdraw:
            stage.withdraw(workspace, known)


def is_there(workspace: Workspace, slug: str) -> bool:
    """Whether a concept's folder of pictures is there, whatever is in it."""
    return (workspace.concepts / slug).is_dir()


def remove(workspace: Workspace, stage: Stage, slug: str) -> None:
    """All that a stage has made of a concept, but for its reason."""
    for path in stage.own(workspace, slug) if SLUG.fullmatch(slug) else ():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _few(slugs: Collection[str]) -> str:
    return f"{', '.join(sorted(slugs)[:NAMED])}{' …' if len(slugs) > NAMED else ''}"
