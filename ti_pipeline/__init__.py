"""Textual inversion for hundreds of concepts: from image sets to CLIP-ranked galleries.

Programs and notebooks use it as `import ti_pipeline as ti`; `ti.open` begins, docs/notebooks.md shows the rest.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from ti_pipeline.waiting import choose_waiting

if TYPE_CHECKING:
    from ti_pipeline.errors import ConceptError, ParamsError, PipelineError
    from ti_pipeline.studio.drawn import Drawn, Picture
    from ti_pipeline.studio.score import Score
    from ti_pipeline.studio.session import Studio, load, open, save
    from ti_pipeline.words.word import Word

__version__ = "0.1.0"
__all__ = ["ConceptError", "Drawn", "ParamsError", "Picture", "PipelineError", "Score", "Studio", "Word", "load", "open", "save"]

# Imported when first asked for: commands and stages that need none of it start as fast as ever.
_HOMES = {
    **dict.fromkeys(("ConceptError", "ParamsError", "PipelineError"), "errors"),
    **dict.fromkeys(("Drawn", "Picture"), "studio.drawn"),
    "Score": "studio.score",
    **dict.fromkeys(("Studio", "load", "open", "save"), "studio.session"),
    "Word": "words.word",
}

if "torch" not in sys.modules:
    choose_waiting()


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
