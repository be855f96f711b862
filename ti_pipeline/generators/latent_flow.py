"""What families share that carry a VAE's latents along a rectified flow with a transformer."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from ti_pipeline.generators.flow import LEVELS, build_flow_solver, dynamic_shift, levels, logit_normal, static_shift
from ti_pipeline.generators.generator import Condition
from ti_pipeline.generators.latent_model import LatentModel


class LatentFlow(LatentModel):
    """A Generator with a transformer that says the velocity, noise - z_0. Its timestep t is 1000 times the noise level."""

    def density(self, quantiles: torch.Tensor) -> torch.Tensor:
        """Noise levels before the shift, by their quantiles in (0, 1)."""
        return logit_normal(quantiles)

    @property
    def timesteps(self) -> int:
        return LEVELS

    @property
    def tokens(self) -> int:
        """Of a picture, as its transformer counts them."""
        _, height, width = self.latent_shape
        return (height // 2) * (width // 2)

    @property
    def shift(self) -> float:
        """Of the noise levels in training, as the schedule has it."""
        return dynamic_shift(self.scheduler_config, self.tokens) or static_shift(self.scheduler_config)

    @cached_property
    def levels(self) -> torch.Tensor:
        return levels(self.density, self.shift, self.device)

    def losses(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Mean squared error of the velocity (Esser et al. 2024, eq. 13 under the density's weights, which are in the draws)."""
        sigma = self.levels[t]
        at = sigma[:, None, None, None]
        predicted = self.predict((1 - at) * z0 + at * noise, 1000 * sigma, condition)
        return (predicted.float() - (noise - z0)).square().mean(dim=(1, 2, 3))

    def solver(self, name: str, steps: int) -> Any:
        return build_flow_solver(name, self.scheduler_config, steps, dynamic_shift(self.scheduler_config, self.tokens), self.sigmas(steps))

    def sigmas(self, steps: int) -> list[float] | None:
        """The noise levels of a drawing where the stock pipeline says them and does not leave them to the solver."""
        return None
