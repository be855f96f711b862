"""Tensors as files of which equal contents are equal bytes, and as digests."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ti_pipeline.files import atomic

if TYPE_CHECKING:
    import torch

_DTYPES = {"float32": "F32", "float64": "F64", "int64": "I64"}


def tensor_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file with a sorted header: the library's own writer puts the metadata in another order in every process."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    blocks: list[bytes] = []
    end = 0
    for name, array in sorted(tensors.items()):
        blocks.append(array.tobytes())
        begin, end = end, end + len(blocks[-1])
        header[name] = {"dtype": _DTYPES[array.dtype.name], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(blocks)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensor_bytes`."""
    content = tensor_bytes({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}, metadata)
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def digest_weights(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes, hexadecimal."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()
