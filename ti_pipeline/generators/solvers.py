"""The ways from noise to a picture, each built from the schedule that the generator was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

NAMES = {"ddim": "DDIM", "dpmsolver++": "DPM++ 2M", "euler": "Euler", "unipc": "UniPC"}  # as designers' tools write them
# Spacings that a schedule asks for, by its keys, as A1111 calls them; DDIM knows none of them.
ASKED = {"use_karras_sigmas": "Karras", "use_exponential_sigmas": "Exponential", "use_beta_sigmas": "Beta"}
COSINE_LAMBDA_MIN = -5.1  # log-SNR/2 below which the cosine schedule's steps are too wild for a second order (diffusers' advice)


def spacing(times: Sequence[float], levels: int, shift: float = 1.0) -> str:
    """What A1111 calls the spacing of steps (`Schedule type`) that is nearest to these timesteps, which fall from `levels` at most.

    `shift` is that of a flow: other tools move what they have spaced in the same way. DDIM and UniPC have their own there, whatever is
    said.
    """
    spaced = {
        "Uniform": np.linspace(levels - 1, 0, len(times)),
        "SGM Uniform": np.linspace(levels - 1, 0, len(times) + 1)[:-1],
        "DDIM": 1 + np.arange(len(times))[::-1] * (levels // len(times)),
    }

    def away(name: str) -> float:
        level = (spaced[name] + 1) / levels
        shifted = levels * shift * level / (1 + (shift - 1) * level) - 1
        return float(np.abs(shifted - np.asarray(times)).mean())

    return min(spaced, key=away)


def build_solver(name: str, scheduler_config: dict[str, Any], steps: int) -> SchedulerMixin:
    """A fresh scheduler with its timesteps set; multistep solvers keep a history, so every batch needs its own.

    - ddim: Song et al. 2021, arXiv 2010.02502, with η = 0: no noise is added on the way.
    - dpmsolver++: second order, multistep, Lu et al. 2022, arXiv 2211.01095.
    - euler: Karras et al. 2022, arXiv 2206.00364, algorithm 1 without churn.
    - unipc: second order, Zhao et al. 2023, arXiv 2302.04867.
    """
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, UniPCMultistepScheduler

    config = {**scheduler_config, "clip_sample": False, "thresholding": False}  # both are for pixels, and these are latents
    if name == "ddim":
        solver = DDIMScheduler.from_config(config)
    elif name == "dpmsolver++":
        lambda_min = COSINE_LAMBDA_MIN if config.get("beta_schedule") == "squaredcos_cap_v2" else -float("inf")
        solver = DPMSolverMultistepScheduler.from_config(
            config, algorithm_type="dpmsolver++", solver_order=2, lambda_min_clipped=lambda_min
        )
    elif name == "euler":
        solver = EulerDiscreteScheduler.from_config(config)
    elif name == "unipc":
        solver = UniPCMultistepScheduler.from_config(config, solver_order=2)
    else:
        raise ValueError(f"unknown solver {name}")
    solver.set_timesteps(steps)
    return solver
