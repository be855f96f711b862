"""What families share that denoise a VAE's latents with a U-Net (LDM: Rombach et al. 2022, arXiv 2112.10752).

A family of them says which text encoders it has and what its U-Net hears of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ti_pipeline.generators.diffusion import Diffusion
from ti_pipeline.generators.generator import Condition
from ti_pipeline.generators.latent_model import LatentModel
from ti_pipeline.generators.solvers import build_solver

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DConditionModel

_OF_TEXT = re.compile(r"attn2\.to_[kv]$|^add_embedding$")


class LatentDiffusion(LatentModel):
    """A Generator with a U-Net that was trained to undo noise."""

    DENOISER = ("unet", "UNet2DConditionModel")

    def any_condition(self, samples: int, tokens: int, streams: torch.Generator) -> Condition:
        """One of the right shapes that says nothing: speed does not depend on what is heard."""
        hidden = torch.randn(samples, tokens, self.unet.config.cross_attention_dim, generator=streams)
        return Condition({"hidden": hidden.to(self.dtype)})

    def heard_beside(self, condition: Condition) -> dict[str, torch.Tensor] | None:
        """What the U-Net hears beside the hidden states, by the names that it has for it."""
        return None

    @property
    def unet(self) -> UNet2DConditionModel:
        return self.denoiser

    @property
    def resolution(self) -> int:
        return self.unet.config.sample_size * self.factor

    @property
    def channels(self) -> int:
        return self.unet.config.in_channels

    @property
    def timesteps(self) -> int:
        return self.diffusion.timesteps

    @cached_property
    def diffusion(self) -> Diffusion:
        return Diffusion(self.scheduler_config, self.device)

    def losses(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        predicted = self.predict(self.diffusion.noisy(z0, noise, t), t, condition)
        return (predicted.float() - self.diffusion.target(z0, noise, t)).square().mean(dim=(1, 2, 3))

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        beside = self.heard_beside(condition)
        return self.unet(x.to(self.dtype), t.to(self.device), condition.parts["hidden"], added_cond_kwargs=beside).sample

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """What a U-Net makes of the text alone – keys, values, its addition to the timestep – is computed in the first step only.

        Not in a compiled U-Net, which would be compiled again for it.
        """
        of_text = [module for name, module in self.unet.named_modules() if _OF_TEXT.search(name)]
        if self.unet._compiled_call_impl:
            of_text.clear()
        with ExitStack() as stack:
            for module in of_text:
                stack.callback(delattr, module, "forward")
                module.forward = _remembering(module.forward)
            yield

    def solver(self, name: str, steps: int) -> SchedulerMixin:
        return build_solver(name, self.scheduler_config, steps)


def _remembering(forward: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same answer for the same tensor."""
    given = answer = None

    def remembered(hidden: torch.Tensor) -> torch.Tensor:
        nonlocal given, answer
        if hidden is not given:
            given, answer = hidden, forward(hidden)
        assert answer is not None
        return answer

    return remembered
