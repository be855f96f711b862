"""How fast a generator was on this machine when it was last at work, for those who ask how long it will take.

Remembered by what speed depends on: the architecture, not the weights; the device, the precision, the size of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ti_pipeline.generators.generator import Generator
from ti_pipeline.remembered import remember, remembered

Of = Literal["samples", "passes"]
"""Samples that are learnt from, or passes of the denoiser for a picture, each a second."""


def keep_speed(of: Of, generator: Generator, checkpointing: bool, speed: float, shape: Sequence[int] = ()) -> None:
    """`shape` is that of a latent [c, h, w], by default the generator's own."""
    remember("speed", _depends(of, generator, checkpointing, shape), speed)


def kept_speed(of: Of, generator: Generator, checkpointing: bool, shape: Sequence[int] = ()) -> float | None:
    """Of such a generator on this machine, for latents of that shape; None where nothing was measured."""
    speed = remembered("speed", _depends(of, generator, checkpointing, shape))
    return speed if isinstance(speed, float) else None


def _depends(of: Of, generator: Generator, checkpointing: bool, shape: Sequence[int]) -> list[Any]:
    how = {key: value for key, value in generator.arithmetic.items() if key not in ("torch", "memory_format")}
    made_of = {
        name: [type(network).__name__, sum(weight.numel() for weight in network.parameters())]
        for name, network in generator.networks.items()
    }
    return [of, how, made_of, list(shape or generator.latent_shape), checkpointing]
