"""Frozen weights in fewer bits, by the libraries that diffusers and transformers quantise with.

Only what multiplies (`nn.Linear`) is quantised; vocabularies, norms and convolutions stay as they are, and so does the VAE.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ti_pipeline.errors import ParamsError

if TYPE_CHECKING:
    from ti_pipeline.generators.source import Source

LARGE = 10**9  # weights from which on a text encoder is quantised too
_LIBRARY = {"int8": "torchao", "fp8": "torchao", "nf4": "bitsandbytes"}
_DEVICES = {"int8": ("cpu", "cuda"), "fp8": ("cpu", "cuda"), "nf4": ("cuda",)}  # as far as diffusers lets them
_NF4_BLOCK = 64  # weights with a scale of their own


def check(kind: str, device: torch.device) -> None:
    """Raises ParamsError, before anything is loaded, for what is not installed or not possible on the device."""
    if device.type not in _DEVICES[kind]:
        there = [other for other, devices in _DEVICES.items() if device.type in devices]
        instead = f"Set it to {' or '.join(there)}, or to null" if there else "Set it to null"
        raise ParamsError(f"generator.quantise: {kind} does not work on {device.type}. {instead}.")
    if find_spec(_LIBRARY[kind]) is None:
        raise ParamsError(f"generator.quantise: {kind} needs {_LIBRARY[kind]}. Install it: pip install 'ti-pipeline[quantise]'.")


def check_source(source: Source) -> None:
    """Raises ParamsError for weights that cannot be quantised."""
    if source.layout == "file":
        raise ParamsError(
            f"generator.quantise: the weights of a folder in diffusers' layout can be quantised, and {source.path.name} is a single file. "
            "Give the model as a folder, or set generator.quantise to null."
        )


def config(kind: str, library: Any, dtype: torch.dtype) -> Any:
    """What `from_pretrained` of a `library` (diffusers or transformers) is told; `dtype` is what is computed in."""
    if kind == "nf4":
        return library.BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return library.TorchAoConfig({"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[kind]())


def is_quantised(network: nn.Module) -> bool:
    """Whether its weights were quantised when it was loaded."""
    return getattr(network, "hf_quantizer", None) is not None


def weight_bytes(network: nn.Module, kind: str | None) -> int:
    """Bytes of the weights and buffers of a network, which may have no content, as they are or as they would be quantised."""
    linear = {id(module.weight) for module in network.modules() if isinstance(module, nn.Linear)} if kind else set()
    every = {id(weight): weight for weight in (*network.parameters(), *network.buffers())}  # a shared one once
    return sum(_quantised(weight, kind) if kind and key in linear else weight.nbytes for key, weight in every.items())


def _quantised(weight: torch.Tensor, kind: str) -> int:
    """With the scales in float32: one a row, or in nf4 one a block."""
    if kind == "nf4":
        return -(-weight.numel() // 2) + 4 * -(-weight.numel() // _NF4_BLOCK)
    return weight.numel() + 4 * weight.shape[0]
