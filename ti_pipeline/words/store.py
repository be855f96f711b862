"""Reads and writes embedding files.

Written in diffusers' layout: one tensor `{token: [n, d]}`, so that `pipe.load_textual_inversion(path)` takes it, with the
provenance in the safetensors metadata. Read: that, and what A1111, the paper's code, kohya, invoke-training and OneTrainer write.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ti_pipeline.errors import ParamsError
from ti_pipeline.files import atomic

_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}
_NAMELESS = ("emb_params", "emp_params", "clip_l", "*")  # keys that say nothing about the token; the file's name does
_A1111 = ("name", "step", "sd_checkpoint", "sd_checkpoint_name")
_OTHER_MODELS = ("clip_g", "t5", "t5xxl", "learned_embeds_2")


@dataclass(frozen=True)
class Embedding:
    """A learnt word: its token, its vectors float32 [n, d], and what the file says about where they come from."""

    token: str
    vectors: torch.Tensor
    provenance: dict[str, str] = field(default_factory=dict)


def write_embedding(path: Path, token: str, vectors: torch.Tensor, provenance: Mapping[str, str]) -> None:
    """Write a learnt word; equal contents are equal bytes. `vectors` [n, d]."""
    write_tensors(path, {token: vectors.detach().cpu().to(torch.float32)}, {**provenance, "format": "pt"})


def read_embedding(path: Path, token: str | None = None) -> Embedding:
    """Read a learnt word; pickles with `weights_only=True`. `token` chooses one of several in a file of the paper's code.

    Raises ParamsError when the file is missing, broken, unsafe, or for another family of models.
    """
    if not path.is_file():
        raise ParamsError(f"{path}: there is no such embedding. Train the concept first, or give a learned_embeds.safetensors.")
    if path.suffix == ".safetensors":
        tensors, provenance = _read_safetensors(path)
        return _choose(path, tensors, token, provenance)
    content = _read_pickle(path)
    if not isinstance(content, Mapping):
        raise ParamsError(f"{path}: no embedding in it ({type(content).__name__} instead of a table of tensors).")
    if "string_to_param" in content:
        provenance = {key: str(content[key]) for key in _A1111 if content.get(key) is not None}
        tensors = dict(content["string_to_param"].items())
        if list(tensors) == ["*"] and provenance.get("name"):
            tensors = {provenance["name"]: tensors["*"]}
        return _choose(path, tensors, token, provenance)
    return _choose(path, dict(content), token, {})


def embedding_fingerprint(path: Path) -> str:
    """The fingerprint that an embedding stands under; empty when there is none or the file cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("fingerprint", "")
    except (OSError, SafetensorError):
        return ""


def embedding_token(path: Path) -> str:
    """The one word in a safetensors file, by its header alone; empty where there is none, or several, or the file cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if not name.endswith("_out")]  # noqa: SIM118
    except (OSError, SafetensorError):
        return ""
    return names[0] if len(names) == 1 else ""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file with a sorted header: the library's own writer puts the metadata in another order in every process."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    blocks, end = [], 0
    for name, tensor in sorted(tensors.items()):
        flat = tensor.detach().cpu().contiguous()
        blocks.append(flat.flatten().view(torch.uint8).numpy().tobytes())
        begin, end = end, end + len(blocks[-1])
        header[name] = {"dtype": _DTYPES[flat.dtype], "shape": list(flat.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic(path) as temporary:
        temporary.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blocks))


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ParamsError(f"{path}: not a readable safetensors file ({error}). Train the concept again, or get the file again.") from None


def _read_pickle(path: Path) -> Any:
    """Tensors, tables and the ParameterDict of the paper's code; nothing else is unpickled."""
    try:
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        raise ParamsError(f"{path}: holds more than tensors or is broken, and is not read ({reason}). Get a .safetensors file.") from None


def _choose(path: Path, content: Mapping[str, Any], token: str | None, provenance: dict[str, str]) -> Embedding:
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor) and value.ndim in (1, 2)}
    if other := sorted(set(tensors) & set(_OTHER_MODELS)):
        raise ParamsError(f"{path}: for a model with other text encoders ({', '.join(other)}), not for Stable Diffusion 1.x or 2.x.")
    named = {(path.stem if name in _NAMELESS else name): value for name, value in tensors.items() if not name.endswith("_out")}
    if token is None and len(named) != 1:
        found = ", ".join(sorted(named)) or "none"
        raise ParamsError(f"{path}: one learnt word was expected in it, found: {found}. Say which, or split the file.")
    chosen = token if token in named else next(iter(named), None) if len(named) == 1 else None
    if chosen is None:
        raise ParamsError(f"{path}: there is no word {token} in it. Found: {', '.join(sorted(named)) or 'none'}.")
    vectors = named[chosen].detach().to(torch.float32)
    return Embedding(token or chosen, vectors if vectors.ndim == 2 else vectors[None], provenance)
