"""Which concepts are current: those whose folder of pictures is there. What is learnt of any other is withdrawn."""

from __future__ import annotations

from ti_pipeline.concepts.concept import discover
from ti_pipeline.workspace import Workspace


def current(workspace: Workspace) -> set[str]:
    """Slugs, those in quarantine among them. Raises ParamsError when the folder of concepts cannot be read or holds none."""
    concepts, errors = discover(workspace.concepts)
    return {concept.slug for concept in concepts} | {error.concept for error in errors}
