"""Loads a frozen generator: the miniature, a folder in diffusers' layout, a single file, a hub name."""

from __future__ import annotations

from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.source import Source, find_source


def load_generator(settings: params.Generator, source: Source | None = None) -> Generator:
    """Load and freeze the generator that `settings` names, or `source` if it has been found already.

    Raises ParamsError that says what is missing, what to download and where to put it.
    """
    source = source or find_source(settings)
    family = source.family
    try:
        return family.load(source, settings)
    except ParamsError:
        raise
    except Exception as error:  # the loaders raise all sorts; the user needs the file and the reason
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ParamsError(f"generator.model: {source.path} cannot be loaded as a {family.name} model: {reason[0]}") from error
