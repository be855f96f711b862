"""Ways of learning a word that are compared with others: one small module each, which is all that has to be written for one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ti_pipeline.inversion.setups.setup import Combination, Setup


@functools.cache
def setups() -> dict[str, type[Setup]]:
    """Every setup under the name of its module, sorted."""
    found: dict[str, type[Setup]] = {}
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and kind.__module__ == module.__name__ and issubclass(kind, Setup) and kind is not Setup:
                found[info.name] = kind
    return found


def sections() -> type[BaseModel]:
    """The section `train.setups` of params: the settings of each setup under its name. One that is not used may be left out."""
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in setups().items()}
    return create_model("Setups", __config__=ConfigDict(extra="forbid", frozen=True), **fields)


def named(text: str) -> tuple[str, ...]:
    """The names that `train.setup` joins by `+`, sorted: their order has no meaning. Raises ValueError for what is no combination."""
    names = sorted(name.strip() for name in text.split("+"))
    for name in names:
        if name not in setups():
            raise ValueError(f"there is no setup {name!r}. There are: {', '.join(setups())}")
        if names.count(name) > 1:
            raise ValueError(f"{name} stands there twice. Name each setup once")
    if len(names) > 1 and "plain" in names:
        raise ValueError("plain is a word with nothing changed, and what the others change. Leave it out")
    return tuple(names)


def combined(names: str, settings: BaseModel) -> Combination:
    """The setups of `train.setup` with their `settings`, those of `train.setups`. Raises ValueError for one that is missing."""
    parts: list[Setup] = []
    for name in names.split("+"):
        try:
            parts.append(getattr(settings, name) or setups()[name]())
        except ValidationError as error:
            missing = ", ".join(f"train.setups.{name}.{e['loc'][0]}" for e in error.errors())
            raise ValueError(f"train.setup is {names}, which needs {missing}. Set it") from None
    return Combination(tuple(parts))
