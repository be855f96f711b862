from __future__ import annotations

import logging

import pytest
import torch

from ti_pipeline.generators.flow import build_flow_solver
from ti_pipeline.generators.solvers import NAMES, build_solver, spacing
from ti_pipeline.generators.stable_diffusion_1 import SCHEDULER

# As the hub's Stable Diffusion 1.5 has it, and the miniature.
PNDM = {**SCHEDULER, "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", "skip_prk_steps": True, "trained_betas": None}
COSINE = {
    "_class_name": "DDIMScheduler", "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False,
    "set_alpha_to_one": True, "steps_offset": 1, "timestep_spacing": "trailing",
}  # fmt: skip
CENTRE, SPREAD = 0.7, 0.3


def alpha_bar(config: dict) -> torch.Tensor:
    return build_solver("ddim", config, 1).alphas_cumprod.double()


def predict(x: torch.Tensor, a: torch.Tensor, kind: str) -> torch.Tensor:
    """The exact prediction for data that is N(CENTRE, SPREAD²), for which the way from noise to data is known."""
    total = a * SPREAD**2 + 1 - a
    noise = (1 - a).sqrt() * (x - a.sqrt() * CENTRE) / total
    data = (x - (1 - a).sqrt() * noise) / a.sqrt()
    return noise if kind == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * data


def solve(name: str, config: dict, noise: torch.Tensor, steps: int) -> torch.Tensor:
    solver = build_solver(name, config, steps)
    alphas, x = alpha_bar(config), noise * solver.init_noise_sigma
    for t in solver.timesteps:
        # Euler's timesteps are real numbers
        a = alphas[t.round().long()]
        x = solver.step(predict(solver.scale_model_input(x, t).double(), a, config["prediction_type"]).float(), t, x).prev_sample
    return x


@pytest.mark.parametrize("config", [PNDM, COSINE], ids=["scaled-linear-epsilon", "cosine-velocity"])
@pytest.mark.parametrize("name", NAMES)
def test_every_solver_goes_from_noise_to_the_data(name: str, config: dict) -> None:
    """Under an exact prediction the end is CENTRE + SPREAD · noise (up to what noise is left at the last timestep)."""
    noise = torch.randn(4000, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    coarse, fine = (solve(name, config, noise, steps) - (CENTRE + SPREAD * noise) for steps in (10, 100))
    assert fine.abs().mean() < 0.03
    assert coarse.abs().mean() < 0.12


def test_ddim_and_euler_are_one_method() -> None:
    """With the same timesteps, DDIM without noise is Euler's step in σ (Karras et al. 2022, section 3)."""
    noise = torch.randn(100, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    assert solve("ddim", COSINE, noise, 10).sub(solve("euler", COSINE, noise, 10)).abs().max() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_foreign_schedules_are_taken_without_a_word(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        solver = build_solver(name, {**PNDM, "clip_sample": True}, 7)
    assert not caplog.records
    assert len(solver.timesteps) == 7
    assert not solver.config.get("clip_sample", False)


XL = {**SCHEDULER, "timestep_spacing": "leading", "steps_offset": 1}  # as Stable Diffusion XL has it


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("ddim", PNDM, "DDIM"),
        ("euler", PNDM, "Uniform"),
        ("dpmsolver++", PNDM, "SGM Uniform"),
        ("unipc", PNDM, "SGM Uniform"),
        ("euler", XL, "DDIM"),
        ("ddim", COSINE, "SGM Uniform"),
    ],
)
def test_the_spacing_of_steps_has_the_name_that_tools_have_for_it(name: str, config: dict, expected: str) -> None:
    for steps in (7, 20, 50):
        assert spacing(build_solver(name, config, steps).timesteps.tolist(), 1000) == expected
    assert spacing(build_solver(name, config, 1).timesteps.tolist(), 1000)


def test_tools_shift_the_levels_of_a_flow_after_they_have_spaced_them() -> None:
    sigmas = [1 - i / 20 for i in range(20)]  # as the stock pipelines of FLUX.1 say them
    config = {"num_train_timesteps": 1000, "use_dynamic_shifting": True}
    times = build_flow_solver("euler", config, 20, 3.0, sigmas).timesteps.tolist()
    assert times == pytest.approx([3000 * sigma / (1 + 2 * sigma) for sigma in sigmas], abs=0.1)
    assert spacing(times, 1000, 3.0) == "SGM Uniform"
