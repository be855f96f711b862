"""Learnt words in the files of other tools, in every layout that is known; nothing in them runs.

A file is told by its first bytes, whatever its name ends with. What holds no word is refused by what it is.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open

from ti_pipeline.errors import ParamsError
from ti_pipeline.words.word import ADAPTER, ONLY

SUFFIXES = (".safetensors", ".pt", ".bin", ".ckpt", ".png")
ENCODERS = {"clip_l": "clip_l", "clip_g": "clip_g", "t5": "t5", "t5xxl": "t5"}
NAMELESS = ("emb_params", "emp_params", "*")  # keys that say nothing about the word; the file's name does
OF_A1111 = ("name", "step", "sd_checkpoint", "sd_checkpoint_name")
_PNG, _CHUNK = b"\x89PNG", "sd-ti-embedding"
_BUNDLED = re.compile(r"bundle_emb\.(?P<word>[^.]+)\.(?:string_to_param\.)?(?P<key>.+)")
_NUMBERED = re.compile(r"(?P<base>.+?)_?(?P<number>[1-9][0-9]*)")
_OUTPUT = "_out"  # OneTrainer's vectors that stand behind the text encoder
_OTHERS = (  # a part of a tensor's name, and what a file is that has one
    (("lora_", "lora.down", "lora.up", ".hada_", ".lokr_", "lora_A", "lora_B"), "an adapter (LoRA or one of its kind)"),
    (("custom_diffusion",), "an adapter (Custom Diffusion’s attention weights)"),
    (("control_model.", "controlnet_"), "a ControlNet"),
    (("model.diffusion_model.", "double_blocks.", "joint_blocks.", "transformer_blocks."), "a whole model, or its denoiser"),
    (("text_model.", "encoder.block."), "a text encoder"),
    (("decoder.conv_in.", "first_stage_model."), "a VAE"),
    (("ip_adapter.", "image_proj."), "an IP-Adapter"),
    (("exp_avg", "optimizer_state_dict"), "the state of an optimiser"),
)


@dataclass(frozen=True)
class Found:
    """A word as another tool has it: its name there, empty where the file has none; vectors by text encoder, float32 [n, d]."""

    name: str
    rows: Mapping[str, torch.Tensor]
    about: Mapping[str, str] = field(default_factory=dict)


def read_foreign(path: Path) -> list[Found]:
    """Every word in a file. Raises ParamsError that says what the file is when it holds none, is broken, or would run code."""
    content, about = _content(path)
    if isinstance(content, list):  # one entry after the other is one word
        content = {"*": _joined(path, [rows for part in content if isinstance(part, Mapping) for rows in part.values()])}
    if not isinstance(content, Mapping):
        raise ParamsError(f"{path}: no word in it ({type(content).__name__} instead of a table of tensors).")
    if "string_to_param" in content:
        about |= {key: str(content[key]) for key in OF_A1111 if content.get(key) is not None}
        content = {name if name != "*" else str(content.get("name") or "*"): rows for name, rows in _entries(content["string_to_param"])}
    tensors = {str(name): rows for name, rows in content.items() if isinstance(rows, torch.Tensor) and not str(name).startswith(ADAPTER)}
    if bundled := _bundled(tensors):
        return [Found(name, _checked(path, rows), about) for name, rows in bundled.items()]
    _refuse_others(path, [*tensors, *map(str, content)])
    return _words(path, tensors, about)


def _content(path: Path) -> tuple[Any, dict[str, str]]:
    try:
        with path.open("rb") as file:
            first = file.read(9)
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}).") from None
    if first.startswith(_PNG):
        return _of_picture(path), {}
    if path.suffix.lower() == ".safetensors" or first[8:9] == b"{":
        try:
            with safe_open(path, framework="pt") as whole:
                return {name: whole.get_tensor(name) for name in whole.keys()}, dict(whole.metadata() or {})  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ParamsError(f"{path}: not a readable safetensors file ({error}). Get the file again.") from None
    return read_pickle(path), {}


def read_pickle(path: Path) -> Any:
    """Tensors, tables and the ParameterDict of the paper's code; nothing else is unpickled. Raises ParamsError."""
    try:
        with torch.serialization.safe_globals([torch.nn.ParameterDict]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        raise ParamsError(f"{path}: holds more than tensors or is broken, and is not read ({reason}). Get a .safetensors file.") from None


def holds_word(picture: Path) -> bool:
    """Whether a PNG has a word of A1111's in it."""
    try:
        return bool(_of_picture(picture))
    except ParamsError:
        return False


def _of_picture(path: Path) -> Any:
    """A1111 keeps a word in a picture's text: JSON in base64, tensors as lists."""

    def tensor(table: dict[str, Any]) -> Any:
        return torch.tensor(table["TORCHTENSOR"]) if "TORCHTENSOR" in table else table

    try:
        with Image.open(path, formats=["PNG"]) as picture:
            text = picture.info.get(_CHUNK)
            if text is None:
                picture.load()
                text = picture.info.get(_CHUNK)
        if text is None:
            raise ParamsError(f"{path}: a picture without a word in it (A1111 writes one under {_CHUNK}).")
        return json.loads(base64.b64decode(text), object_hook=tensor)
    except (OSError, SyntaxError, binascii.Error, ValueError, TypeError, RuntimeError, RecursionError) as error:
        raise ParamsError(f"{path}: the word in this picture is damaged ({type(error).__name__}). Get the file again.") from None


def _entries(table: Any) -> Iterable[tuple[str, Any]]:
    """Of a table, or of a ParameterDict: torch before 1.12 kept its entries under another name."""
    if isinstance(table, torch.nn.Module):
        return [*vars(table).get("_parameters", {}).items()] or [(name, getattr(table, name)) for name in vars(table).get("_keys", ())]
    return table.items() if isinstance(table, Mapping) else ()


def _bundled(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """The words that a LoRA carries along."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, rows in tensors.items():
        if match := _BUNDLED.fullmatch(name):
            found.setdefault(match["word"], {})[ENCODERS.get(match["key"], ONLY)] = rows
    return found


def _refuse_others(path: Path, names: list[str]) -> None:
    for marks, what in _OTHERS:
        if any(mark in name for name in names for mark in marks):
            raise ParamsError(f"{path}: this is {what}, and no word: it has no vectors that go into a text encoder.")


def _words(path: Path, tensors: Mapping[str, torch.Tensor], about: dict[str, str]) -> list[Found]:
    inputs = {name: rows for name, rows in tensors.items() if not name.endswith(_OUTPUT)}
    if tensors and not inputs:
        what = f"only output vectors ({', '.join(sorted(tensors))}), which OneTrainer puts behind the text encoder"
        raise ParamsError(f"{path}: {what}. A word needs vectors that go into it: save it there without output embeddings.")
    if inputs and set(inputs) <= set(ENCODERS):
        return [Found(about.get("token", ""), _checked(path, {ENCODERS[name]: rows for name, rows in inputs.items()}), about)]
    words = _together(inputs)
    named = {("" if name in NAMELESS else name): rows for name, rows in words.items()}
    if not named:
        raise ParamsError(f"{path}: no word in it: it has no tensors.")
    return [Found(name or about.get("token", ""), _checked(path, {ONLY: rows}), about) for name, rows in named.items()]


def _together(vectors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With those of a word in one: trainers number its vectors `tok`, `tok_1`, `tok_2` (diffusers) or `tok`, `tok1`, `tok2` (kohya)."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    for name, rows in vectors.items():
        match = _NUMBERED.fullmatch(name)
        base, number = (match["base"], int(match["number"])) if match and match["base"] in vectors else (name, 0)
        parts.setdefault(base, {})[number] = rows
    words = {}
    for base, numbered in parts.items():
        if sorted(numbered) == list(range(len(numbered))) and len({rows.shape[-1:] for rows in numbered.values()}) == 1:
            words[base] = torch.cat([_flat(numbered[i]) for i in range(len(numbered))]) if len(numbered) > 1 else numbered[0]
        else:
            words |= {name: rows for name, rows in vectors.items() if name == base or any(rows is other for other in numbered.values())}
    return words


def _joined(path: Path, parts: list[Any]) -> torch.Tensor:
    tensors = [_flat(part) for part in parts if isinstance(part, torch.Tensor) and part.ndim]
    if not tensors or len({rows.shape[1] for rows in tensors}) > 1:
        raise ParamsError(f"{path}: no word in it: a list of {len(parts)} parts that are no vectors of one width.")
    return torch.cat(tensors)


def _checked(path: Path, rows: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As float32 [n, d]. Raises ParamsError for what can be no vectors of a text encoder."""
    found = {}
    for encoder, of in rows.items():
        flat = _flat(of)
        if of.ndim == 0 or of.ndim > 3 or (of.ndim == 3 and len(of) != 1) or not of.is_floating_point() or not flat.numel():
            raise ParamsError(f"{path}: a tensor of {of.dtype} {list(of.shape)} is no vectors of a word.")
        if not torch.isfinite(flat).all():
            raise ParamsError(f"{path}: a vector in it is not finite; it was saved from a training that had broken. Get another.")
        found[encoder] = flat
    if len({len(of) for of in found.values()}) > 1:
        counts = ", ".join(f"{len(of)} ({encoder})" for encoder, of in found.items())
        raise ParamsError(f"{path}: its text encoders have different numbers of vectors: {counts}.")
    return found


def _flat(rows: torch.Tensor) -> torch.Tensor:
    return rows.detach().to(torch.float32).reshape(-1, rows.shape[-1] if rows.ndim else 1).contiguous()
