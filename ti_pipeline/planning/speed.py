"""How fast a generator was on this machine when it was last at work, for those who ask how long it will take.

Kept in the user's cache by what speed depends on: the architecture, not the weights; the device, the precision, the size of pictures.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ti_pipeline.files import digest_value, write_json
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.measured import cache_folder

log = logging.getLogger(__name__)
Of = Literal["samples", "passes"]
"""Samples that are learnt from, or passes of the denoiser for a picture, each a second."""


def keep_speed(of: Of, generator: Generator, checkpointing: bool, speed: float, shape: Sequence[int] = ()) -> None:
    """`shape` is that of a latent [c, h, w], by default the generator's own."""
    try:
        write_json(_file(of, generator, checkpointing, shape), speed)
    except OSError as error:  # costs a later plan its time, and no run its end
        log.warning("the speed cannot be kept: %s", error)


def kept_speed(of: Of, generator: Generator, checkpointing: bool, shape: Sequence[int] = ()) -> float | None:
    """Of such a generator on this machine, for latents of that shape; None where nothing was measured."""
    try:
        return float(json.loads(_file(of, generator, checkpointing, shape).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _file(of: Of, generator: Generator, checkpointing: bool, shape: Sequence[int]) -> Path:
    how = {key: value for key, value in generator.arithmetic.items() if key not in ("torch", "memory_format")}
    made_of = {
        name: [type(network).__name__, sum(weight.numel() for weight in network.parameters())]
        for name, network in generator.networks.items()
    }
    depends = [of, how, made_of, list(shape or generator.latent_shape), checkpointing]
    return cache_folder() / f"speed-{digest_value(depends)[:16]}.json"
