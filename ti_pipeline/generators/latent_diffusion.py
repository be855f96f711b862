"""What families share that denoise a VAE's latents with a U-Net (LDM: Rombach et al. 2022, arXiv 2112.10752).

A family of them says which text encoders it has and what its U-Net hears of them: `hidden` states, all cross-attention layers the
same, or each its own (P+: Voynov et al. 2023, arXiv 2303.09522).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ti_pipeline.generators.diffusion import Diffusion
from ti_pipeline.generators.generator import Condition
from ti_pipeline.generators.latent_model import HIDDEN, LatentModel, own, squared_error
from ti_pipeline.generators.solvers import ASKED, build_solver, spacing

if TYPE_CHECKING:
    from diffusers import SchedulerMixin, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention

_WAY = ("down_blocks", "mid_block", "up_blocks")  # through a U-Net, which names its parts in another order
_OF_TEXT = re.compile(r"attn2\.to_[kv]$|^add_embedding$")


class LatentDiffusion(LatentModel):
    """A Generator with a U-Net that was trained to undo noise."""

    DENOISER = ("unet", "UNet2DConditionModel")

    def any_condition(self, samples: int, tokens: int, streams: torch.Generator) -> Condition:
        """One of the right shapes that says nothing: speed does not depend on what is heard."""
        hidden = torch.randn(samples, tokens, self.unet.config.cross_attention_dim, generator=streams)
        return Condition({HIDDEN: hidden.to(self.dtype)})

    def heard_beside(self, condition: Condition, x: torch.Tensor) -> dict[str, torch.Tensor] | None:
        """What the U-Net hears beside the hidden states when it sees `x` [b, c, h, w], by the names that it has for it."""
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

    @property
    def diffuses(self) -> bool:
        return True

    def losses(
        self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        predicted = self.predict(self.diffusion.noisy(z0, noise, t), t, condition)
        return squared_error(predicted, self.diffusion.target(z0, noise, t), weight)

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        if own(0) in condition.parts:
            return self._hooked(x, t, condition)
        return self.unet(
            x.to(self.dtype), t.to(self.device), condition.parts[HIDDEN], added_cond_kwargs=self.heard_beside(condition, x)
        ).sample

    def _hooked(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """As `predict`, layer by layer. Not by a compiled U-Net, which would be compiled again for each hook."""
        with ExitStack() as stack:
            if self.unet.is_gradient_checkpointing:  # what is computed once more on the way back would hear without the hooks
                self.unet.disable_gradient_checkpointing()
                stack.callback(self.unet.enable_gradient_checkpointing)
            for i, layer in enumerate(self._cross_attention):
                stack.callback(layer.register_forward_pre_hook(_hearing(condition.part(own(i))), with_kwargs=True).remove)
            hidden, beside = condition.parts[HIDDEN], self.heard_beside(condition, x)
            return self.unet.forward(x.to(self.dtype), t.to(self.device), hidden, added_cond_kwargs=beside).sample

    def attention(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        made: dict[tuple[int, str], torch.Tensor] = {}

        def keep(key: tuple[int, str]) -> Callable[..., None]:
            return lambda module, args, output: made.__setitem__(key, output)

        with ExitStack() as stack:
            for i, layer in enumerate(self._cross_attention):
                for name, module in (("query", layer.to_q), ("key", layer.to_k)):
                    stack.callback(module.register_forward_hook(keep((i, name))).remove)
            self._hooked(self.diffusion.noisy(z0, noise, t), t, condition)
        paid = []
        for i, layer in enumerate(self._cross_attention):
            scores = layer.get_attention_scores(*(layer.head_to_batch_dim(made[i, name]) for name in ("query", "key")))
            paid.append(scores.float().unflatten(0, (len(z0), -1)).mean(dim=(1, 2)))
        return torch.stack(paid)

    @cached_property
    def _cross_attention(self) -> list[Attention]:
        """In the order in which they are passed."""
        found = [(name, module) for name, module in self.unet.named_modules() if name.endswith(".attn2")]
        return [module for _, module in sorted(found, key=lambda each: _WAY.index(each[0].partition(".")[0]))]

    @property
    def layers(self) -> int:
        return len(self._cross_attention)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """What a U-Net makes of the text alone – keys, values, its addition to the timestep – is computed in the first step only.

        Not in a compiled U-Net, which would be compiled again for it.
        """
        of_text = [module for name, module in self.unet.named_modules() if _OF_TEXT.search(name)]
        if self.unet._compiled_call_impl:
            of_text.clear()
        with ExitStack() as stack:
            stack.enter_context(super().drawing())
            for module in of_text:
                stack.callback(delattr, module, "forward")
                module.forward = _remembering(module.forward)
            yield

    def solver(self, name: str, steps: int, shape: Sequence[int] | None = None) -> SchedulerMixin:
        return build_solver(name, self.scheduler_config, steps)

    def spacing(self, name: str, steps: int, shape: Sequence[int]) -> str:
        asked = [spaced for key, spaced in ASKED.items() if self.scheduler_config.get(key) and name != "ddim"]
        return asked[0] if asked else spacing(self.solver(name, steps).timesteps.tolist(), self.timesteps)


def _hearing(hidden: torch.Tensor) -> Callable[..., tuple[tuple, dict[str, Any]]]:
    """A hook for a cross-attention layer that hears `hidden`, whatever its U-Net says."""
    return lambda layer, args, kwargs: (args, {**kwargs, "encoder_hidden_states": hidden})


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
