"""A frozen text-to-image model and the device that it is on.

What loads one (`load`) brings the model libraries, which take seconds to import: a stage that has nothing to do needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.source import digest_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer


@dataclass(frozen=True, eq=False)
class Generator:
    """A frozen text-to-image model. Text encoder and U-Net are in `dtype`; the VAE stays in float32, where it is exact."""

    name: str
    digest: str
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    unet: UNet2DConditionModel
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    memory_format: str = "contiguous"  # of the U-Net

    @property
    def prediction_type(self) -> str:
        return self.scheduler_config.get("prediction_type", "epsilon")

    @property
    def resolution(self) -> int:
        """Pixels of the edge of its square pictures."""
        return self.unet.config.sample_size * 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def context(self) -> int:
        """Tokens that it reads of a prompt, start and end included."""
        return min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)

    @property
    def vocabulary(self) -> torch.Tensor:
        """The table of word vectors [words, d]: read, never written."""
        return self.text_encoder.get_input_embeddings().weight

    @property
    def arithmetic(self) -> dict[str, str]:
        """What the last bits of a result depend on besides weights and inputs, as it is for the thread that asks."""
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
        return {"text_encoder": self.text_encoder, "vae": self.vae, "unet": self.unet}


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_device(name: str) -> torch.device:
    """`auto` is the first accelerator that is there. Raises ParamsError for one that is not."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    device = torch.device(name)
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}[device.type]
    if (device.index or 0) >= count:
        raise ParamsError(f"generator.device: there is no {name} on this machine ({count} {device.type} devices). Set it to auto or cpu.")
    return device


def weight_digests(generator: Generator) -> dict[str, str]:
    """SHA-256 of every weight, by network: the same before and after training, or something wrote where it must not."""
    return {part: digest_weights(network.state_dict()) for part, network in generator.networks.items()}
