"""Ways of learning a word that are compared with others: one small module each, which is all that has to be written for one."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from ti_pipeline.inversion.setups.setup import Setup


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
