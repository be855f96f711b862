"""What families share that denoise a VAE's latents with a U-Net (LDM: Rombach et al. 2022, arXiv 2112.10752).

A family of them says which text encoders it has and what its U-Net hears of them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ti_pipeline.generators.clip import ClipEncoder
from ti_pipeline.generators.diffusion import Diffusion
from ti_pipeline.generators.generator import Condition, Ids, Posterior, Rows
from ti_pipeline.generators.solvers import build_solver

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SchedulerMixin, UNet2DConditionModel

_OF_TEXT = re.compile(r"attn2\.to_[kv]$|^add_embedding$")


@dataclass(frozen=True, eq=False)
class LatentDiffusion(ABC):
    """A Generator. Text encoders and U-Net are in `dtype`; the VAE stays in float32, where it is exact."""

    name: str
    digest: str
    encoders: Mapping[str, ClipEncoder]
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    memory_format: str = "contiguous"  # of the U-Net

    @abstractmethod
    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        """What the U-Net hears."""

    def unconditional(self) -> Condition:
        return self.condition(self.tokenise([""], {}), None)

    def any_condition(self, samples: int, tokens: int, streams: torch.Generator) -> Condition:
        """One of the right shapes that says nothing: speed does not depend on what is heard."""
        hidden = torch.randn(samples, tokens, self.unet.config.cross_attention_dim, generator=streams)
        return Condition({"hidden": hidden.to(self.dtype)})

    def heard_beside(self, condition: Condition) -> dict[str, torch.Tensor] | None:
        """What the U-Net hears beside the hidden states, by the names that it has for it."""
        return None

    @property
    def resolution(self) -> int:
        return self.unet.config.sample_size * self._factor

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        edge = self.resolution // self._factor
        return self.unet.config.in_channels, edge, edge

    @property
    def timesteps(self) -> int:
        return self.diffusion.timesteps

    @property
    def context(self) -> int:
        return min(encoder.context for encoder in self.encoders.values())

    @cached_property
    def diffusion(self) -> Diffusion:
        return Diffusion(self.scheduler_config, self.device)

    @property
    def arithmetic(self) -> dict[str, str]:
        on_cpu = self.device.type == "cpu"
        return {
            "precision": str(self.dtype).removeprefix("torch."),
            "memory_format": self.memory_format,
            "device": f"cpu {torch.backends.cpu.get_cpu_capability()}" if on_cpu else _name(self.device),
            **({"threads": str(torch.get_num_threads())} if on_cpu else {}),
            "torch": torch.__version__,
        }

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {**{name: encoder.model for name, encoder in self.encoders.items()}, "vae": self.vae, "unet": self.unet}

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int]) -> Ids:
        return {name: encoder.tokenise(prompts, lengths) for name, encoder in self.encoders.items()}

    def posterior(self, pixels: torch.Tensor) -> Posterior:
        found, scale, shift = self.vae.encode(pixels.to(self.device)).latent_dist, self.vae.config.scaling_factor, self._shift
        mean = found.mean if shift is None else found.mean - shift
        return Posterior(mean * scale, found.std * scale)

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

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(next(self.vae.parameters()).dtype) / self.vae.config.scaling_factor
        if self._shift is not None:
            latents = latents + self._shift
        return self.vae.decode(latents).sample.float()

    @property
    def _factor(self) -> int:
        """Pixels of a latent's edge."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def _shift(self) -> float | None:
        return self.vae.config.get("shift_factor")


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


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
