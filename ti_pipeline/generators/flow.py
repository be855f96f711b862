"""Rectified flow: straight ways from data to noise (Liu et al. 2022, arXiv 2209.03003; Esser et al. 2024, arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

LEVELS = 1000  # equally likely noise levels that training draws from
Density = Callable[[torch.Tensor], torch.Tensor]
"""Quantiles in (0, 1) to noise levels in (0, 1)."""


def logit_normal(quantiles: torch.Tensor) -> torch.Tensor:
    """The middle of the way is drawn more often than its ends (Esser et al. 2024, section 3.1, with m = 0 and s = 1)."""
    return torch.special.ndtri(quantiles).sigmoid()


DENSITIES: dict[str, Density] = {"uniform": lambda quantiles: quantiles, "logit-normal": logit_normal}


def shifted(sigmas: torch.Tensor, shift: float) -> torch.Tensor:
    """More noise for larger pictures (Esser et al. 2024, eq. 23)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def levels(density: Density, shift: float, device: torch.device) -> torch.Tensor:
    """The noise levels [LEVELS] that are equally likely under a density, rising."""
    quantiles = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return shifted(density(quantiles), shift).to(device, torch.float32)


def dynamic_shift(config: dict[str, Any], tokens: int) -> float | None:
    """exp(mu) of a schedule that shifts by the number of the picture's tokens; None for one that does not."""
    if not config.get("use_dynamic_shifting"):
        return None
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
    return float(np.exp(config.get("base_shift", 0.5) + slope * (tokens - low)))


@dataclass
class FlowSolver:
    """Euler's steps along the flow, with what `sample` asks of every solver."""

    scheduler: SchedulerMixin
    init_noise_sigma: float = 1.0

    @property
    def timesteps(self) -> torch.Tensor:
        return self.scheduler.timesteps

    def scale_model_input(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample

    def step(self, predicted: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor) -> Any:
        return self.scheduler.step(predicted, timestep, sample)


def static_shift(config: dict[str, Any]) -> float:
    """That of a schedule that does not depend on the picture; SANA's has another name for it."""
    return config.get("flow_shift") or config.get("shift") or 1.0


def build_flow_solver(name: str, config: dict[str, Any], steps: int, shift: float | None, sigmas: list[float] | None) -> Any:
    """A fresh solver with its timesteps set. `ddim` without noise is Euler's method here; `shift` is that of `dynamic_shift`, and
    `sigmas` the noise levels where the stock pipeline says them."""
    from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

    if name in ("ddim", "euler"):
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config, shift=static_shift(config))
        scheduler.set_timesteps(None if sigmas else steps, sigmas=sigmas, **({"mu": float(np.log(shift))} if shift else {}))
        return FlowSolver(scheduler)
    how = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift or static_shift(config)}
    kind = {"dpmsolver++": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[name]
    solver = kind(num_train_timesteps=config.get("num_train_timesteps", 1000), solver_order=2, **how)
    solver.set_timesteps(steps)
    return solver
