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
    from ti_pipeline.model_files import Shapes


@dataclass(frozen=True)
class Family:
    """A kind of models that one module loads.

    `pipelines` are the classes that `model_index.json` names. `parts` are the folders of a model in diffusers' layout, `weights`
    those of them that hold weights, `optional` further ones that a model may have. `layers` is whether its denoiser has
    cross-attention layers. `told` is whether tensors of these shapes, by their names in a single file, are a denoiser of this family.
    `check` raises ParamsError for a folder whose parts do not belong together, `check_file` for a file whose denoiser draws from more
    than text. `load` gives a Generator on its device, frozen; `readers` how its text encoders read, by name, without loading them.
    """

    name: str
    pipelines: frozenset[str]
    parts: tuple[str, ...]
    weights: tuple[str, ...]
    told: Callable[[Shapes], bool]
    check: Callable[[Path], None]
    load: Callable[[Source, params.Generator], Generator]
    readers: Callable[[Source], Mapping[str, TextReader]]
    optional: tuple[str, ...] = ()
    check_file: Callable[[Path, Shapes], None] = lambda path, shapes: None
    layers: bool = False

    @property
    def every(self) -> tuple[str, ...]:
        """All parts that a model of it may have."""
        return (*self.parts, *self.optional)


@cache
def families() -> tuple[Family, ...]:
    """All that there are, by the names of their modules."""
    modules = (import_module(f"{package.__name__}.{module.name}") for module in pkgutil.iter_modules(package.__path__))
    return tuple(module.FAMILY for module in modules)
