"""Other papers' ways of measuring a learnt subject, so that a number can be put beside theirs: one small module each."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from ti_pipeline.evaluation.protocols.protocol import Protocol


@functools.cache
def protocols() -> dict[str, Protocol]:
    """Every protocol by its name, sorted."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    found = [module.PROTOCOL for module in modules if hasattr(module, "PROTOCOL")]
    return {protocol.name: protocol for protocol in sorted(found, key=lambda protocol: protocol.name)}
