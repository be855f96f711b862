"""Reads and writes the files of words.

Written in diffusers' layout, with the provenance in the safetensors metadata: for a model with one text encoder one tensor
`{token: [n, d]}`, so that `pipe.load_textual_inversion(path)` takes it; for one with several a tensor an encoder (`clip_l`, `clip_g`).
Read: these, and what A1111, the paper's code, kohya, invoke-training and OneTrainer write.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_file
from ti_pipeline.tensor_file import write_tensors
from ti_pipeline.words.foreign import ENCODERS, NAMELESS, OF_A1111, read_pickle
from ti_pipeline.words.word import ADAPTER, ONLY, Word


def write_word(path: Path, word: Word) -> None:
    """Write a word with its provenance; equal contents are equal bytes."""
    tensors = word_tensors(word)
    about = {} if word.token in tensors else {"token": word.token}
    write_tensors(path, tensors, {**about, **word.provenance, "format": "pt"})


def word_tensors(word: Word) -> dict[str, torch.Tensor]:
    """A word's tensors under the names that they have in its file."""
    rows = {encoder: vectors.detach().cpu().to(torch.float32) for encoder, vectors in word.rows.items()}
    tensors = {word.token: rows[ONLY]} if list(rows) == [ONLY] else rows
    return tensors | {f"{ADAPTER}{name}": tensor for name, tensor in word.adapters.items()}


def read_word(path: Path, token: str | None = None) -> Word:
    """Read a word; pickles with `weights_only=True`. `token` chooses one of several in a file of the paper's code.

    Raises ParamsError when the file is missing, broken, unsafe, or holds no word.
    """
    if not path.is_file():
        raise ParamsError(f"{path}: there is no such word. Train the concept first, or give a learned_embeds.safetensors.")
    if path.suffix == ".safetensors":
        tensors, provenance = _read_safetensors(path)
        word = word_of(path, tensors, token, provenance)
    else:
        word = _from_pickle(path, read_pickle(path), token)
    return replace(word, class_words=word.provenance.get("initializer", ""), digest=digest_file(path))


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ParamsError(f"{path}: not a readable safetensors file ({error}). Train the concept again, or get the file again.") from None


def _from_pickle(path: Path, content: Any, token: str | None) -> Word:
    if not isinstance(content, Mapping):
        raise ParamsError(f"{path}: no word in it ({type(content).__name__} instead of a table of tensors).")
    if "string_to_param" not in content:
        return word_of(path, content, token, {})
    provenance = {key: str(content[key]) for key in OF_A1111 if content.get(key) is not None}
    tensors = dict(content["string_to_param"].items())
    if list(tensors) == ["*"] and provenance.get("name"):
        tensors = {provenance["name"]: tensors["*"]}
    return word_of(path, tensors, token, provenance)


def word_of(path: Path, content: Mapping[str, Any], token: str | None, provenance: dict[str, str]) -> Word:
    """The word in tensors by name that were read from `path`. Raises ParamsError where there is none, or another than `token`."""
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    about: dict[str, Any] = {
        "adapters": {name.removeprefix(ADAPTER): value for name, value in tensors.items() if name.startswith(ADAPTER)},
        "provenance": provenance,
    }
    vectors = {name: value for name, value in tensors.items() if value.ndim in (1, 2) and not name.startswith(ADAPTER)}
    named = {name: value for name, value in vectors.items() if not name.endswith("_out")}
    if named and set(named) <= set(ENCODERS):
        rows = {ENCODERS[name]: _vectors(value) for name, value in named.items()}
        return Word(token or provenance.get("token", path.stem), rows, **about)
    named = {(path.stem if name in NAMELESS else name): value for name, value in named.items()}
    if token is None and len(named) != 1:
        found = ", ".join(sorted(named)) or "none"
        raise ParamsError(f"{path}: one learnt word was expected in it, found: {found}. Say which, or split the file.")
    chosen = token if token in named else next(iter(named), None) if len(named) == 1 else None
    if chosen is None:
        raise ParamsError(f"{path}: there is no word {token} in it. Found: {', '.join(sorted(named)) or 'none'}.")
    return Word(token or chosen, {ONLY: _vectors(named[chosen])}, **about)


def _vectors(value: torch.Tensor) -> torch.Tensor:
    vectors = value.detach().to(torch.float32)
    return vectors if vectors.ndim == 2 else vectors[None]
