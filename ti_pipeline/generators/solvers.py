"""The ways from noise to a picture, each built from the schedule that the generator was trained with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

NAMES = {"ddim": "DDIM", "dpmsolver++": "DPM++ 2M", "euler": "Euler", "unipc": "UniPC"}  # as designers' tools write them
COSINE_LAMBDA_MIN = -5.1  # log-SNR/2 below which the cosine schedule's steps are too wild for a second order (diffusers' advice)


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
