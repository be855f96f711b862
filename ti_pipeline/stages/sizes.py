"""How large candidates are, known from the generator's shapes before it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ti_pipeline.errors import ParamsError
from ti_pipeline.params import Generate

if TYPE_CHECKING:
    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.stages.stage import Run


def size_of(generator: Generator, section: Generate) -> tuple[int, int]:
    """Width and height of candidates in pixels. Raises ParamsError for a size that the generator does not draw."""
    width, height = section.width or generator.resolution, section.height or generator.resolution
    try:
        generator.latents_of(width, height)
    except ParamsError as error:
        raise ParamsError(f"generate.width and generate.height: {error}") from None
    return width, height


def check_size(run: Run) -> None:
    """Raises ParamsError for a size that is set and not drawn. No weight is read for it."""
    if run.params.generate.width or run.params.generate.height:
        from ti_pipeline.planning.outline import shapes_of

        size_of(shapes_of(run.models.source, run.params.generator), run.params.generate)
