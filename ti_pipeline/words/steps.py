"""Words as they were on the way to what was learnt, in one file: a tensor `STEP/NAME` for each that a word's own file has as `NAME`.

The metadata are the provenance that the words have in common, `token` among it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ti_pipeline.errors import ParamsError
from ti_pipeline.tensor_file import write_tensors
from ti_pipeline.words.files import word_of, word_tensors
from ti_pipeline.words.word import Word


def write_steps(path: Path, words: Mapping[int, Word], provenance: Mapping[str, str]) -> None:
    """Write words of one token by the steps after which they were so; equal contents are equal bytes."""
    tensors = {f"{step}/{name}": tensor for step, word in words.items() for name, tensor in word_tensors(word).items()}
    write_tensors(path, tensors, {**provenance, "token": next(iter(words.values())).token, "format": "pt"})


def read_steps(path: Path) -> tuple[dict[int, Word], dict[str, str]]:
    """The words by their steps, rising, and their provenance. Raises ParamsError when the file is missing or broken."""
    try:
        with safe_open(path, framework="pt") as file:
            provenance = dict(file.metadata() or {})
            parts: defaultdict[int, dict[str, torch.Tensor]] = defaultdict(dict)
            for key in file.keys():  # noqa: SIM118
                step, _, name = key.partition("/")
                parts[int(step)][name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValueError) as error:
        raise ParamsError(f"{path}: no readable file of a word's steps ({error}). Train the concept again.") from None
    token, class_words = provenance.get("token"), provenance.get("initializer", "")
    return {step: replace(word_of(path, parts[step], token, {}), class_words=class_words) for step in sorted(parts)}, provenance


def steps_in(path: Path) -> tuple[list[int], dict[str, str]]:
    """Which steps are in the file, rising, and their provenance, by its header alone; nothing when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return sorted({int(key.partition("/")[0]) for key in file.keys()}), dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError):
        return [], {}
