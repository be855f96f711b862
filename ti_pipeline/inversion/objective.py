"""How the loss is weighted and the noise drawn, where it is not the generator's own plain way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline.errors import ParamsError

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.generators.source import Source
    from ti_pipeline.params import Train


@dataclass(frozen=True)
class Objective:
    """`weights` of the loss at each timestep, float32 [timesteps]; None is 1. `offset` is how far the noise of a sample is moved as a
    whole, each channel by its own draw (Guttenberg 2023, "Diffusion with Offset Noise")."""

    weights: Tensor | None = None
    offset: float = 0.0

    @classmethod
    def of(cls, train: Train, generator: Generator) -> Objective:
        gamma, diffusion = train.min_snr, generator.diffusion
        return cls(diffusion.min_snr(gamma) if gamma is not None and diffusion else None, train.noise_offset)

    def weight(self, t: Tensor, places: Tensor | None) -> Tensor | None:
        """How much the squared error counts, of samples at the timesteps `t` [b] whose masks say `places` [b, 1, h, w], if there are any;
        None is 1."""
        if self.weights is None:
            return places
        of_time = self.weights[t][:, None, None, None]
        return of_time if places is None else of_time * places


def check_learning(train: Train, generator: Generator | Source) -> None:
    """Raise ParamsError for a generator, loaded or not, that the setup is nothing for, or to which the objective means nothing."""
    train.chosen.check_generator(generator)
    if not generator.diffuses:
        for key, value, what in (
            ("min_snr", train.min_snr, "weighs timesteps by a schedule's ratio of signal to noise"),
            ("noise_offset", train.noise_offset, "is for models that never saw noise alone, at which a flow starts"),
        ):
            if value:
                raise ParamsError(f"train.{key} {what}, and {generator.name} follows a rectified flow. Set it back to its default.")
