"""The forward process and the target of models that are trained to undo noise (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

from typing import Any

import torch

from ti_pipeline.errors import ParamsError

PREDICTIONS = ("epsilon", "v_prediction", "sample")
UNSAID = "unsaid"  # of a file that could predict one or another


class Diffusion:
    """q(z_t | z_0) = N(alpha_t z_0, sigma_t^2) of a training schedule."""

    def __init__(self, scheduler_config: dict[str, Any], device: torch.device):
        from diffusers import DDPMScheduler

        scheduler = DDPMScheduler.from_config(scheduler_config)
        self.prediction: str = scheduler.config.prediction_type
        if self.prediction == UNSAID:
            raise ParamsError(
                "generator.model: the file is a Stable Diffusion 2.x and does not say whether it predicts epsilon (most do at 512 pixels) "
                "or v (most do at 768). Set generator.prediction to epsilon or v_prediction."
            )
        if self.prediction not in PREDICTIONS:
            raise ParamsError(f"generator.model: prediction type {self.prediction!r} is none of {', '.join(PREDICTIONS)}.")
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

    def min_snr(self, gamma: float) -> torch.Tensor:
        """Min-SNR-gamma (Hang et al. 2023, arXiv 2303.09556, section 3.4), float32 [timesteps] on the CPU.

        z_0 is weighted by min(SNR, gamma); the squared error of epsilon is SNR times that of z_0, and that of v SNR + 1 times.
        """
        snr = (self.alpha / self.sigma).square().cpu()
        if self.prediction == "epsilon":
            return (gamma / snr).clamp(max=1)  # also where the last timestep has no signal
        bounded = snr.clamp(max=gamma)
        return bounded / (snr + 1) if self.prediction == "v_prediction" else bounded

    def _at(self, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.alpha[t][:, None, None, None], self.sigma[t][:, None, None, None]
