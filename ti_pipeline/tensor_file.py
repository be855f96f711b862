"""Tensors as files of which equal contents are equal bytes, and as digests."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ti_pipeline.files import atomic

_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file with a sorted header: the library's own writer puts the metadata in another order in every process."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    blocks: list[bytes] = []
    end = 0
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        blocks.append(flat.flatten().view(torch.uint8).numpy().tobytes())
        begin, end = end, end + len(blocks[-1])
        header[name] = {"dtype": _DTYPES[flat.dtype], "shape": list(flat.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary:
        temporary.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blocks))


def digest_weights(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors with their names, types and shapes, hexadecimal."""
    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return whole.hexdigest()
