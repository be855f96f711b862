"""What a frozen text-to-image model is to all that train, draw and measure with it.

Only its family (`families`) knows what it is made of. What loads one brings the model libraries, which take seconds to import: a
stage that has nothing to do needs none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.reader import TextReader
from ti_pipeline.tensor_file import digest_weights

if TYPE_CHECKING:
    from diffusers import SchedulerMixin

    from ti_pipeline.generators.diffusion import Diffusion

Ids = Mapping[str, torch.Tensor]
"""Of prompts, int64 [b, context] by text encoder, on the CPU. An id from the table's length on is a learnt row."""
Rows = Mapping[str, torch.Tensor]
"""Learnt rows [r, d] by text encoder, in the order of their ids."""


class Encoder(TextReader, Protocol):
    """A frozen text encoder."""

    @property
    def table(self) -> torch.Tensor:
        """Vectors of the vocabulary's pieces [V, d]: read, never written."""

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int], *, negative: bool = False) -> torch.Tensor:
        """Ids of prompts [b, context], cut and padded as the stock pipeline does it. `lengths` are the rows of each token in them, in
        order: ids behind the table are given out in that order. `negative` are prompts to steer away from, which some read otherwise."""

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """What it says last of ids [b, context], after its final norm, [b, context, …]."""


@dataclass(frozen=True)
class Condition:
    """What a denoiser hears of prompts: tensors by name, all with the same first dimension. Only their family knows the names.

    A part with a dot, `x.3`, is what place 3 hears in place of `x`; places without one of their own hear `x`. Where prompts have not all
    the same length, a part has zeros behind them, and the family masks these.
    """

    parts: Mapping[str, torch.Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.parts.values())))

    def __getitem__(self, rows: slice | torch.Tensor) -> Condition:
        return Condition({name: part[rows] for name, part in self.parts.items()})

    def expand(self, count: int) -> Condition:
        """One prompt's, as that of `count` equal ones."""
        return Condition({name: part.expand(count, *part.shape[1:]) for name, part in self.parts.items()})

    def part(self, name: str) -> torch.Tensor:
        return self.parts[name] if name in self.parts else self.parts[name.partition(".")[0]]

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        names = dict.fromkeys(name for each in conditions for name in each.parts)
        return Condition({name: torch.cat(_of_one_length([each.part(name) for each in conditions])) for name in names})


def _of_one_length(parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors [b, n, …] with zeros behind those of fewer n."""
    if len({part.shape[1:2] for part in parts}) == 1:
        return parts
    longest = max(part.shape[1] for part in parts)
    return [F.pad(part, (0, 0) * (part.ndim - 2) + (0, longest - part.shape[1])) for part in parts]


@dataclass(frozen=True)
class Posterior:
    """q(z | x) of pictures, float32 [b, c, h, w], scaled as the denoiser expects latents."""

    mean: torch.Tensor
    std: torch.Tensor


class Generator(Protocol):
    """A frozen text-to-image model."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """Of every file that it was loaded from."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of its denoiser."""

    @property
    def arithmetic(self) -> Mapping[str, str]:
        """What the last bits of a result depend on besides weights and inputs, as it is for the thread that asks."""

    @property
    def resolution(self) -> int:
        """Pixels of the edge of its square pictures."""

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of one latent at that resolution, [c, h, w]."""

    @property
    def grid(self) -> int:
        """Pixels of which the width and the height of its pictures are multiples."""

    def latents_of(self, width: int, height: int) -> tuple[int, int, int]:
        """The shape of one latent of pictures of that size in pixels, [c, h, w]. Raises ParamsError for a size that it does not draw."""

    @property
    def timesteps(self) -> int:
        """Of its training schedule; one is drawn from [0, timesteps)."""

    @property
    def diffuses(self) -> bool:
        """Whether it was trained to undo noise that a schedule adds; the others follow a rectified flow."""

    @property
    def density(self) -> str | None:
        """That of the noise levels that training draws from, where it is not its family's own."""

    @property
    def diffusion(self) -> Diffusion | None:
        """The noise that it was trained to undo; None where it follows a rectified flow."""

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Text encoders by the names that files of words use: `clip_l`, `clip_g`, `t5`, `llm`; `text` where there is one only."""

    @property
    def learning(self) -> Mapping[str, Encoder]:
        """Those of them that learn words."""

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int], instead: str = "") -> Ids:
        """Ids of prompts for each text encoder, as `Encoder.tokenise`; those that do not learn read `instead` in the place of a token."""

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        """What the denoiser hears; gradients flow to `rows`, which text encoders without learnt ids in `ids` need not have."""

    @property
    def layers(self) -> int:
        """Cross-attention layers of its denoiser, of which each can hear its own states; 0 where there are none."""

    def layered(self, conditions: Sequence[Condition]) -> Condition:
        """That of which layer i, in the order of the denoiser's own pass, hears what `conditions[i]` say. What is heard beside the
        layers is the mean. Raises ValueError unless there is one for each layer."""

    def states(self, condition: Condition) -> Sequence[torch.Tensor]:
        """What is heard of each token, [b, tokens, d]: one for all layers, or one for each."""

    @property
    def spoken(self) -> tuple[str, ...]:
        """Text encoders whose tokens stand behind each other in `states`."""

    def attention(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """How much of its attention each cross-attention layer pays to each token, over all heads and places, float32
        [layers, b, tokens]; the rest as in `losses`."""

    def unconditional(self) -> Condition:
        """What the stock pipeline hears in place of a negative prompt when there is none, [1, …]."""

    def contrasts(self, scale: float) -> bool:
        """Whether guidance of this strength needs to know, too, what it says of the negative prompt."""

    def contrasted(self, said: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
        """The guided prediction, from those under the prompt and under the negative prompt, [b, c, h, w]."""

    def guidance_elsewhere(self, scale: float) -> Mapping[str, float]:
        """Guidance of this strength by the names that A1111 and Forge have for it, as these count it."""

    def guided(self, condition: Condition, scale: float) -> Condition:
        """With the number that a model of distilled guidance hears; the same for all others."""

    def posterior(self, pixels: torch.Tensor) -> Posterior:
        """Of RGB pixels [b, 3, height, width] in [-1, 1], float32."""

    def losses(
        self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition, weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The family's own denoising loss of each sample, float32 [b]; `z0` and `noise` float32 [b, c, h, w], `t` [b]. The squared error
        is multiplied by `weight`, float32 [b, 1, h, w] or [b, 1, 1, 1]."""

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """What the denoiser says of `x` [b, c, h, w] at the timestep `t`, in its own terms (epsilon, v, …) and type."""

    def drawing(self) -> AbstractContextManager[None]:
        """While it is open, what the denoiser makes of a Condition alone may be computed once for each Condition."""

    def solver(self, name: str, steps: int, shape: Sequence[int] | None = None) -> SchedulerMixin:
        """A fresh way from noise to a latent of `shape` [c, h, w], by default `latent_shape`, its timesteps set; one that keeps a history
        is good for one batch."""

    def spacing(self, name: str, steps: int, shape: Sequence[int]) -> str:
        """What A1111 calls the way in which that solver spaces its timesteps, or one like it."""

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """RGB pixels float32 [b, 3, height, width], about [-1, 1], of latents [b, c, h, w]."""


def choose_device(name: str) -> torch.device:
    """`auto` is the first accelerator that is there. Raises ParamsError for one that is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1, "meta": 1}[device.type]
    if (device.index or 0) >= count:
        raise ParamsError(f"generator.device: there is no {name} on this machine ({count} {device.type} devices). Set it to auto or cpu.")
    return device


def weight_digests(generator: Generator) -> dict[str, str]:
    """SHA-256 of every weight, by network: the same before and after training, or something wrote where it must not."""
    return {part: digest_weights(network.state_dict()) for part, network in generator.networks.items()}


def table_digest(generator: Generator) -> str:
    """SHA-256 of the vocabulary's vectors of every text encoder."""
    return digest_weights({name: encoder.table for name, encoder in generator.encoders.items()})


def norms(generator: Generator) -> Iterator[tuple[str, float]]:
    """The median norm of the vocabulary's vectors, by text encoder that learns words."""
    for name, encoder in generator.learning.items():
        yield name, encoder.table.detach().float().norm(dim=-1).median().item()
