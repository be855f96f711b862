"""The generator's own denoising loss (LDM equation; Gal et al. 2022, eq. 1 and 2)."""

from __future__ import annotations

from typing import Literal

import torch

from ti_pipeline.errors import ParamsError

Prediction = Literal["epsilon", "v_prediction", "sample"]


class Diffusion:
    """Forward process q(z_t | z_0) = N(alpha_t z_0, sigma_t^2) of a generator's training schedule."""

    def __init__(self, scheduler_config: dict, device: torch.device):
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler.from_config(scheduler_config)
        self.prediction: Prediction = scheduler.config.prediction_type
        if self.prediction not in ("epsilon", "v_prediction", "sample"):
            raise ParamsError(f"generator.model: prediction type {self.prediction!r} is none of epsilon, v_prediction, sample.")
        alpha_bar = scheduler.alphas_cumprod.to(torch.float32)
        self.timesteps = len(alpha_bar)
        self.alpha, self.sigma = alpha_bar.sqrt().to(device), (1 - alpha_bar).sqrt().to(device)

    def noisy(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """z_t = alpha_t z_0 + sigma_t epsilon; z0, noise [b, c, h, w], t [b]."""
        alpha, sigma = self._at(t)
        return alpha * z0 + sigma * noise

    def target(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """What the network should say: epsilon, z_0, or v = alpha_t epsilon - sigma_t z_0 (Salimans and Ho 2022)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return z0
        alpha, sigma = self._at(t)
        return alpha * noise - sigma * z0

    def _at(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.alpha[t][:, None, None, None], self.sigma[t][:, None, None, None]


def concept_losses(predicted: torch.Tensor, target: torch.Tensor, concepts: int) -> torch.Tensor:
    """Mean squared error of each concept over its own samples, float32 [concepts]; inputs [concepts * samples, c, h, w]."""
    return (predicted.float() - target.float()).square().mean(dim=(1, 2, 3)).view(concepts, -1).mean(dim=1)
