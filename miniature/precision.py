"""Half the bits where they cost half the time."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def fast(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32: on GPUs, and on CPUs with instructions for it."""
    if not device.startswith("cpu"):
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def autocast(device: str) -> torch.autocast:
    """Products in bfloat16 where `fast`; parameters, sums and norms stay float32."""
    return torch.autocast(device.split(":")[0], torch.bfloat16, enabled=fast(device))


def loads_in_float32(config: Path) -> None:
    """transformers loads in the `dtype` of config.json, diffusers in float32: a pipeline of both would stop at its first call."""
    told = json.loads(config.read_text()) | {"dtype": "float32"}
    config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")
