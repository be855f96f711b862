"""What a family of generators says about itself. Every module in `families` is one; nothing else names it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.generators import families as package

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source


@dataclass(frozen=True)
class Family:
    """A kind of models that one module loads.

    `pipelines` are the classes that `model_index.json` names. `parts` are the folders of a model in diffusers' layout, `weights`
    those of them that hold weights, `optional` further ones that a model may have. `layers` is whether its denoiser has
    cross-attention layers, `diffuses` whether it was trained to undo noise that a schedule adds (the others follow a rectified flow).
    `text` begins the names of the text encoders' tensors in a single file. `check` raises ParamsError for a folder whose parts do not
    belong together. `load` gives a Generator on its device, frozen; `readers` how its text encoders read, by name, without loading them.
    """

    name: str
    pipelines: frozenset[str]
    parts: tuple[str, ...]
    weights: tuple[str, ...]
    text: str
    check: Callable[[Path], None]
    load: Callable[[Source, params.Generator], Generator]
    readers: Callable[[Source], Mapping[str, TextReader]]
    optional: tuple[str, ...] = ()
    layers: bool = False
    diffuses: bool = False


@cache
def families() -> tuple[Family, ...]:
    """All that there are, by the names of their modules."""
    modules = (import_module(f"{package.__name__}.{module.name}") for module in pkgutil.iter_modules(package.__path__))
    return tuple(module.FAMILY for module in modules)
