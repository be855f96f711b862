"""What a family of generators says about itself. Every module in `families` is one; nothing else names it."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators import families as package
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes


@dataclass(frozen=True)
class Family:
    """A kind of models that one module loads.

    `pipelines` are the classes that `model_index.json` names. `parts` are the folders of a model in diffusers' layout, `weights` those
    of them that hold weights, `optional` further ones that a model may have. `layers` is whether its denoiser has cross-attention
    layers, `diffuses` whether it was trained to undo noise that a schedule adds (the others follow a rectified flow). `denoiser` is its
    class, where folders alone do not tell the family, `density` that of the noise levels that a flow learns from. `encoders` are the names
    of a model's text encoders, and whether each learns words unless told otherwise; `tables` where the stock pipeline has them, which may
    load words by itself. `told` is whether tensors of these shapes, by their names in a single file, are a denoiser of this family. `check`
    raises ParamsError for a folder whose parts do not belong together, `check_file` for a file whose denoiser draws from more than text.
    `load` gives a Generator on its device, frozen; `readers` how its text encoders read, by name, without loading them.
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
    diffuses: bool = False
    denoiser: str = ""
    density: str = ""
    tables: Mapping[str, str] = field(default_factory=dict, hash=False)
    loads_words: bool = False
    encoders: Callable[[Source], Mapping[str, bool]] = lambda source: {ONLY: True}

    @property
    def every(self) -> tuple[str, ...]:
        """All parts that a model of it may have."""
        return (*self.parts, *self.optional)


@cache
def families() -> tuple[Family, ...]:
    """All that there are, by the names of their modules."""
    modules = (import_module(f"{package.__name__}.{module.name}") for module in pkgutil.iter_modules(package.__path__))
    return tuple(module.FAMILY for module in modules)


def learning(source: Source, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the text encoders that learn words: those that are `wanted`, else the family's own choice.

    Raises ParamsError for one that the model does not have.
    """
    there = source.family.encoders(source)
    if wanted is None:
        return tuple(name for name, learns in there.items() if learns)
    for name in wanted:
        if name not in there:
            raise ParamsError(
                f"generator.encoders: {source.name} is a {source.family.name} model and has no text encoder {name!r} to learn words. "
                f"Name some of {', '.join(there)}; null takes {', '.join(learning(source, None))}."
            )
    return tuple(name for name in there if name in wanted)


def other_density(source: Source, wanted: str | None) -> str | None:
    """That of the noise levels that training draws from, where it is not the family's own. Raises ParamsError for a model that has none."""
    if wanted and source.diffuses:
        raise ParamsError(f"generator.density: {source.name} learns from the timesteps of its schedule, all alike. Set it to null.")
    return wanted if wanted != source.family.density else None


def other_than_usual(source: Source, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """As `learning`, and empty where that is the family's own choice."""
    names = learning(source, wanted)
    return names if names != learning(source, None) else ()


def some_of(source: Source, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """As `learning`, and empty where all of them learn."""
    names = learning(source, wanted)
    return names if len(names) < len(source.family.encoders(source)) else ()
