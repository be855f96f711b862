"""What a concept is learnt with."""

from __future__ import annotations

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError


def settings_for(manifest: Manifest, train: params.Train) -> params.Train:
    """The section `train` with what the concept itself says about its vectors and steps; one that goes on from a file has as many vectors
    as that, unless it says otherwise. What is to be done with masks is left as it is by default for one that has none, whose word does
    not depend on it.

    Raises ConceptError where they make no sense with the setup.
    """
    start = manifest.start
    vectors = manifest.vectors or (start.vectors if start else None)
    own = {"vectors": vectors, "steps": manifest.steps, "masks": None if manifest.masked else "auto"}
    settings = train.model_copy(update={key: value for key, value in own.items() if value is not None})
    try:
        settings.chosen.check(settings)
        if start:
            settings.chosen.check_start()
    except ValueError as error:
        raise ConceptError(manifest.slug, f"its own settings in concept.yaml do not go with train.setup: {error}") from None
    return settings
