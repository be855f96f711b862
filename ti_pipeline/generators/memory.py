"""What lets a generator do with less memory: activations that are computed twice, tiles, and parts that wait until they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

import torch.utils.checkpoint
from accelerate.utils import send_to_device
from torch import nn

from ti_pipeline.generators.latent_model import LatentModel

if TYPE_CHECKING:
    from diffusers import ModelMixin

Model = TypeVar("Model", bound=LatentModel)
MAIN_MEMORY = torch.device("cpu")


def checkpoint(generator: LatentModel) -> None:
    """Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174) of the blocks of denoiser and text encoders."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    again = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)
    generator.denoiser.enable_gradient_checkpointing()
    for encoder in generator.encoders.values():
        if encoder.model.supports_gradient_checkpointing:
            for layer in encoder.model.modules():
                if isinstance(layer, GradientCheckpointingLayer):
                    layer.gradient_checkpointing = True
                    layer.__dict__["_gradient_checkpointing_func"] = again
                    layer.training = True  # without which it keeps everything; what is in it stays as it is


def tile(vae: ModelMixin, edge: int) -> None:
    """Have a VAE take pictures of more than `edge` pixels in tiles. They overlap by a quarter, or more where that is no whole latent."""
    if hasattr(vae, "tile_latent_min_size"):
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = edge, edge // 2 ** (len(vae.config.block_out_channels) - 1)
    else:
        stride = edge * 3 // 4 // vae.spatial_compression_ratio * vae.spatial_compression_ratio
        vae.enable_tiling(edge, edge, stride, stride)


def placed(generator: Model, offload: bool) -> Model:
    """The generator on its device, but for the halves of its VAE: training only encodes, and drawing only decodes."""
    device, vae = generator.device, generator.vae
    if device.type in (MAIN_MEMORY.type, "meta"):
        for network in generator.networks.values():
            network.to(device)
        return generator
    for half in vae.children():
        come_when_used(half, device)
    if offload:
        return replace(generator, offload=Offload([each.model for each in generator.encoders.values()], generator.denoiser, device))
    for network in generator.networks.values():
        if network is not vae:
            network.to(device)
    return generator


def come_when_used(part: nn.Module, device: torch.device) -> None:
    """Have a part moved to the device when it is first called, to stay there."""

    def come(module: nn.Module, args: tuple) -> None:
        module.to(device)
        handle.remove()

    handle = part.register_forward_pre_hook(come)


class Offload:
    """While pictures are drawn, text encoders and denoiser are not on the device at the same time. Each comes when it is called."""

    def __init__(self, encoders: list[nn.Module], denoiser: nn.Module, device: torch.device):
        self.encoders, self.denoiser, self.device = encoders, denoiser, device
        self._turn = RLock()  # concepts are made ready in another thread than that which draws their previews
        for encoder in encoders:
            encoder.register_forward_pre_hook(self._begin, with_kwargs=True)
            encoder.register_forward_hook(self._end, always_call=True)
        denoiser.register_forward_pre_hook(self._come, with_kwargs=True)

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """While it is open, the denoiser has the device for itself."""
        with self._turn:
            for encoder in self.encoders:
                encoder.to(MAIN_MEMORY)
            try:
                yield
            finally:
                self.denoiser.to(MAIN_MEMORY)

    def _come(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        module.to(self.device)
        return send_to_device(args, self.device), send_to_device(kwargs, self.device)

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        self._turn.acquire()
        return self._come(module, args, kwargs)

    def _end(self, *_: object) -> None:
        self._turn.release()
