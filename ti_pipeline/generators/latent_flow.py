"""What families share that carry a VAE's latents along a rectified flow with a transformer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch

from ti_pipeline.generators.flow import DENSITIES, LEVELS, build_flow_solver, dynamic_shift, levels, static_shift
from ti_pipeline.generators.generator import Condition
from ti_pipeline.generators.latent_model import LatentModel, squared_error
from ti_pipeline.generators.solvers import spacing


class LatentFlow(LatentModel):
    """A Generator with a transformer that says the velocity, noise - z_0. Its timestep t is 1000 times the noise level."""

    PATCH = 2
    DENSITY: ClassVar[str] = "uniform"  # of the noise levels in training before the shift, as diffusers' script has it

    @property
    def timesteps(self) -> int:
        return LEVELS

    def tokens(self, shape: Sequence[int]) -> int:
        """Of a latent of that shape […, h, w], as its transformer counts them."""
        height, width = shape[-2:]
        return (height // self.PATCH) * (width // self.PATCH)

    def shift(self, tokens: int) -> float:
        """Of the noise levels, as the schedule has it for pictures of so many tokens."""
        return dynamic_shift(self.scheduler_config, tokens) or static_shift(self.scheduler_config)

    def training_shift(self, tokens: int) -> float:
        """Of the noise levels in training."""
        return self.shift(tokens)

    def levels(self, tokens: int) -> torch.Tensor:
        """The noise levels [LEVELS] that training draws from, for pictures of so many tokens."""
        shift = self.training_shift(tokens)
        if shift not in self._levels:
            self._levels[shift] = levels(DENSITIES[self.density or self.DENSITY], shift, self.device)
        return self._levels[shift]

    @cached_property
    def _levels(self) -> dict[float, torch.Tensor]:
        return {}

    def losses(
        self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean squared error of the velocity (Esser et al. 2024, eq. 13 under the density's weights, which are in the draws)."""
        sigma = self.levels(self.tokens(z0.shape))[t]
        at = sigma[:, None, None, None]
        predicted = self.predict((1 - at) * z0 + at * noise, 1000 * sigma, condition)
        return squared_error(predicted, noise - z0, weight)

    def solver(self, name: str, steps: int, shape: Sequence[int] | None = None) -> Any:
        shift = dynamic_shift(self.scheduler_config, self.tokens(shape or self.latent_shape))
        return build_flow_solver(name, self.scheduler_config, steps, shift, self.sigmas(steps))

    def spacing(self, name: str, steps: int, shape: Sequence[int]) -> str:
        return spacing(self.solver(name, steps, shape).timesteps.tolist(), LEVELS, self.shift(self.tokens(shape)))

    def sigmas(self, steps: int) -> list[float] | None:
        """The noise levels of a drawing where the stock pipeline says them and does not leave them to the solver."""
        return None
