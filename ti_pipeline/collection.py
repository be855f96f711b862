"""Which concepts there are, and what is to go because its concept is gone.

A concept is withdrawn by taking its folder away. `validate` over the whole collection notices that and forgets it; every other
stage over the whole collection then removes what it had made of it. What people chose (`choices/`) is their work and stays.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterable

from ti_pipeline.errors import ParamsError
from ti_pipeline.reasons import forget, of_stage
from ti_pipeline.turns import turn
from ti_pipeline.workspace import OUTPUTS, SLUG, Workspace

log = logging.getLogger(__name__)
NAMED = 12  # in a message


def validated(workspace: Workspace) -> list[str]:
    """Slugs of those that have a manifest, sorted; of those in quarantine too."""
    return sorted(path.stem for path in workspace.output("validate").glob("*.parquet") if not path.name.startswith("."))


def current(workspace: Workspace) -> set[str]:
    """The concepts of the collection as `validate` last saw it, those among them that it holds back. Nothing else is current,
    whatever lies in `artifacts/`."""
    return {*validated(workspace), *(reason.concept for reason in of_stage(workspace, "validate"))}


def forget_gone(workspace: Workspace, present: Collection[str], usable: Collection[str]) -> None:
    """Take away the manifests and reasons of concepts that are not `present`; `usable` are those that have nothing wrong.

    Raises ParamsError, and takes nothing away, when this looks like another folder or an empty one rather than like a withdrawal.
    """
    known = current(workspace)
    gone = known - set(present)
    if gone and (not usable or (len(gone) > 1 and gone == known)):
        what = "no concept that can be used" if not usable else "other concepts only"
        raise ParamsError(
            f"concepts.folder: {workspace.concepts} holds {what}, and {_few(gone)} of this workspace would be withdrawn with all that "
            "was made of them. Is it the right folder, and is it mounted? For another collection give another --workspace; to withdraw "
            f"them all, delete {workspace.output('validate')} first."
        )
    if gone:
        log.warning("%s: withdrawn, since there is no such folder in %s any more. %s", _few(gone), workspace.concepts, "Choices stay.")
    for slug in gone:
        remove(workspace, "validate", slug)
        forget(workspace, "validate", slug)


def remove_withdrawn(workspace: Workspace, stages: Iterable[str] = tuple(OUTPUTS)) -> None:
    """Remove what stages have made of concepts that are neither current nor in the folder of concepts."""
    known = current(workspace)
    for stage in stages if known else ():
        left = {*workspace.made(stage), *(reason.concept for reason in of_stage(workspace, stage))} - known
        for slug in sorted(slug for slug in left if not (workspace.concepts / slug).is_dir()):
            with turn(workspace, stage, [slug], wait=False) as mine:  # one that is being made goes with the next run
                if mine:
                    remove(workspace, stage, slug)
                    forget(workspace, stage, slug)
        if stage == "train":
            _remove_checkpoints(workspace, known)


def remove(workspace: Workspace, stage: str, slug: str) -> None:
    """All that a stage has made of a concept, but for its reason."""
    for path in workspace.places(stage, slug) if SLUG.fullmatch(slug) else ():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_checkpoints(workspace: Workspace, known: Collection[str]) -> None:
    """Those of which nobody is current: no training will ever take them up."""
    from ti_pipeline.inversion.checkpoint import concepts_in  # imports torch, which takes seconds

    for path in workspace.checkpoint("x").parent.glob("[!.]*.safetensors"):
        inside = concepts_in(path)
        if inside and not any(slug in known or (workspace.concepts / slug).is_dir() for slug in inside):
            with turn(workspace, "train", inside, wait=False) as mine:
                if mine:
                    path.unlink(missing_ok=True)


def _few(slugs: Collection[str]) -> str:
    return f"{', '.join(sorted(slugs)[:NAMED])}{' …' if len(slugs) > NAMED else ''}"
