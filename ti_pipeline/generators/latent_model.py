"""What all families share that denoise the latents of a VAE under frozen text encoders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Condition, Ids, Posterior, Rows
from ti_pipeline.generators.placeholder import spell
from ti_pipeline.generators.quantisation import LARGE
from ti_pipeline.generators.text_encoder import TextEncoder
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from diffusers import ModelMixin

    from ti_pipeline.generators.diffusion import Diffusion
    from ti_pipeline.generators.memory import Offload

CFG = "CFG scale"  # what A1111 calls the strength of classifier-free guidance; at 1 there is none
HIDDEN = "hidden"  # the part of a Condition that has the states of tokens
MASK = "mask"  # the part that says where there are any, where prompts have not all the same length


@dataclass(frozen=True, eq=False)
class LatentModel(ABC):
    """All of a Generator but what its denoiser is and how it was trained. The VAE stays in float32, where it is exact."""

    name: str
    digest: str
    encoders: Mapping[str, TextEncoder]
    vae: ModelMixin
    denoiser: ModelMixin
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype  # of text encoders and denoiser
    memory_format: str = "contiguous"  # of the denoiser
    learn: tuple[str, ...] = ()  # names of the text encoders that learn words
    density: str | None = None  # of the noise levels in training, where it is not the family's own
    quantised: str | None = None  # what the frozen weights are kept in, where it is less than `dtype`
    offload: Offload | None = None

    DENOISER: ClassVar[tuple[str, str]]  # the folder and the class, of diffusers
    VAE: ClassVar[tuple[str, str]] = ("vae", "AutoencoderKL")
    SPOKEN: ClassVar[tuple[str, ...]] = (ONLY,)  # text encoders whose tokens stand behind each other in HIDDEN
    PATCH: ClassVar[int] = 1  # latents of the edge of what the denoiser takes for one

    @abstractmethod
    def condition(self, ids: Ids, rows: Rows | None) -> Condition: ...

    @abstractmethod
    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor: ...

    @abstractmethod
    def losses(
        self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition, weight: torch.Tensor | None = None
    ) -> torch.Tensor: ...

    @abstractmethod
    def solver(self, name: str, steps: int, shape: Sequence[int] | None = None) -> Any: ...

    @abstractmethod
    def spacing(self, name: str, steps: int, shape: Sequence[int]) -> str: ...

    @property
    @abstractmethod
    def timesteps(self) -> int: ...

    @property
    @abstractmethod
    def resolution(self) -> int: ...

    @property
    def channels(self) -> int:
        """Of a latent."""
        return self.vae.config.latent_channels

    @property
    def layers(self) -> int:
        return 0

    def layered(self, conditions: Sequence[Condition]) -> Condition:
        """What is heard beside the states of tokens, such as what a CLIP pools, is the mean of what the conditions have of it."""
        if len(conditions) != self.layers:
            raise ValueError(f"{len(conditions)} conditions for {self.layers} layers")
        each = {own(i): condition.parts[HIDDEN] for i, condition in enumerate(conditions)}
        return Condition({name: _mean([condition.parts[name] for condition in conditions]) for name in conditions[0].parts} | each)

    def states(self, condition: Condition) -> list[torch.Tensor]:
        return [part for name, part in condition.parts.items() if name.startswith(f"{HIDDEN}.")] or [condition.parts[HIDDEN]]

    @property
    def spoken(self) -> tuple[str, ...]:
        return tuple(name for name in self.SPOKEN if name in self.encoders)

    def attention(self, z0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """None is paid where there are no such layers."""
        return torch.zeros(self.layers, *condition.parts[HIDDEN].shape[:2], device=self.device)

    def unconditional(self) -> Condition:
        return self.condition({name: encoder.tokenise([""], {}, negative=True) for name, encoder in self.encoders.items()}, None)

    def contrasts(self, scale: float) -> bool:
        return scale > 1

    def contrasted(self, said: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
        """Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), as Stable Diffusion counts the scale."""
        return negative + scale * (said - negative)

    def guidance_elsewhere(self, scale: float) -> dict[str, float]:
        return {CFG: scale if self.contrasts(scale) else 1.0}

    def guided(self, condition: Condition, scale: float) -> Condition:
        return condition

    def drawing(self) -> AbstractContextManager[None]:
        return self.offload.drawing() if self.offload else nullcontext()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.latents_of(self.resolution, self.resolution)

    @property
    def grid(self) -> int:
        return self.factor * self.PATCH

    def latents_of(self, width: int, height: int) -> tuple[int, int, int]:
        if width % self.grid or height % self.grid:
            raise ParamsError(f"{self.name} draws no {width} × {height} pixels: both must be multiples of {self.grid}.")
        return self.channels, height // self.factor, width // self.factor

    @property
    def diffusion(self) -> Diffusion | None:
        return None

    @property
    def diffuses(self) -> bool:
        return False

    @property
    def learning(self) -> dict[str, TextEncoder]:
        return {name: self.encoders[name] for name in self.learn}

    @property
    def factor(self) -> int:
        """Pixels of a latent's edge."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def arithmetic(self) -> dict[str, str]:
        on_cpu = self.device.type == "cpu"
        return {
            "precision": str(self.dtype).removeprefix("torch."),
            "memory_format": self.memory_format,
            "device": f"cpu {torch.backends.cpu.get_cpu_capability()}" if on_cpu else _name(self.device),
            **({"threads": str(torch.get_num_threads())} if on_cpu else {}),
            **({"quantised": self.quantised} if self.quantised else {}),
            "torch": torch.__version__,
        }

    @property
    def networks(self) -> dict[str, nn.Module]:
        return {**{name: encoder.model for name, encoder in self.encoders.items()}, "vae": self.vae, self.DENOISER[0]: self.denoiser}

    def kept_in(self, name: str) -> str | None:
        """What the weights of a network are quantised to."""
        encoder = self.encoders.get(name)
        large = name == self.DENOISER[0] or (encoder is not None and encoder.model.num_parameters() >= LARGE)
        return self.quantised if large else None

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int], instead: str = "") -> Ids:
        spelt = [spell(prompt, dict.fromkeys(lengths, instead)) for prompt in prompts]
        return {
            name: encoder.tokenise(prompts, lengths) if name in self.learn else encoder.tokenise(spelt, {})
            for name, encoder in self.encoders.items()
        }

    def read(self, name: str, ids: Ids, rows: Rows | None, *, every_layer: bool = False) -> Any:
        """What a text encoder makes of its ids, with its rows where it has some."""
        return self.encoders[name].read(ids[name], rows.get(name) if rows else None, every_layer=every_layer)

    def posterior(self, pixels: torch.Tensor) -> Posterior:
        found, scale, shift = self.vae.encode(pixels.to(self.device)).latent_dist, self.vae.config.scaling_factor, self._shift
        mean = found.mean if shift is None else found.mean - shift
        return Posterior(mean * scale, found.std * scale)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        latents = latents.to(next(self.vae.parameters()).dtype) / self.vae.config.scaling_factor
        if self._shift is not None:
            latents = latents + self._shift
        return self.vae.decode(latents).sample.float()

    @property
    def _shift(self) -> float | None:
        return self.vae.config.get("shift_factor")


def own(layer: int) -> str:
    """The part of a Condition that a cross-attention layer hears in place of HIDDEN."""
    return f"{HIDDEN}.{layer}"


def _mean(each: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of equal tensors that tensor, to the last bit."""
    first, *others = each
    return first + sum((other - first for other in others), torch.zeros_like(first)) / len(each)


def squared_error(said: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """The mean of each sample, float32 [b], of what the denoiser says [b, c, h, w]; `weight` as in `Generator.losses`."""
    error = (said.float() - target).square()
    return (error if weight is None else error * weight).mean(dim=(1, 2, 3))


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
