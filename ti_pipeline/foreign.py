"""Folders of models that others made: nothing in them ever runs.

The libraries run code that a folder brings or names, some of them after asking on the terminal. So whatever would have them do it
is refused by name before they see the folder; the loaders are told as well, each in its own words, that they must not.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ti_pipeline.errors import ParamsError

# Keys that name code: a module in the folder or on a hub, a class of any package, a kernel that is downloaded.
_NAMES_CODE = ("auto_map", "auto_mapping", "custom_pipeline", "custom_pipelines", "trust_remote_code")
_NAMES_MODELS = ("hf_model_name", "base_model_name_or_path")
_LIBRARIES = ("diffusers", "transformers", "stable_diffusion", "latent_diffusion", None)  # the third and fourth are folders of diffusers
_TOKENIZER = ("clean", "strip_sep_token", "language")  # what open_clip passes on that does no more than prepare the text
_DATA = ("vocab.json", "tokenizer.json", "added_tokens.json")  # keys are words


def refuse_code(folder: Path, setting: str) -> None:
    """Look through the configurations of a model's folder, its own and its parts'; `setting` is the key of params.yaml that names it.

    Raises ParamsError with the file and the key that would run code, or fetch another model than the folder's own.
    """
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if path.name in _DATA or path.name.endswith(".index.json"):
            continue
        content = read_json(path, setting)
        for key, value in _entries(content):
            if reason := _reason(key.rpartition(".")[2], value):
                raise _refusal(setting, path, key, reason)
        if path.name == "model_index.json":
            _check_index(content, path, setting)


def read_json(path: Path, setting: str) -> Any:
    """Raises ParamsError for what is no JSON: a page or a pointer that was saved in its place."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ParamsError(f"{setting}: {path} is not valid JSON ({error}). Download that file again.") from None


def refuse_pickled_code(path: Path, setting: str, beside: tuple[str, ...] = ()) -> list[str]:
    """Classes and functions that a pickle of torch's names beyond tensors; found without reading it, so that none of them runs.

    Raises ParamsError for those that are of other packages than `beside`. A pickle of an old torch, or a broken one, shows
    nothing here; torch reads that with `weights_only`, or not at all.
    """
    import torch

    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError, pickle.UnpicklingError, EOFError, OSError):
        return []
    if others := [name for name in names if name.partition(".")[0] not in beside]:
        raise ParamsError(
            f"{setting}: {path} names code ({', '.join(others[:3])}) that reading it would run, so it is not read. "
            "Take the model's .safetensors file."
        )
    return names


@contextmanager
def nothing_asked() -> Iterator[None]:
    """transformers asks on a terminal whether to run code where it was not told; open_clip leaves it no other way to be told."""
    from transformers import dynamic_module_utils

    before, dynamic_module_utils.TIME_OUT_REMOTE_CODE = dynamic_module_utils.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


def _entries(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key, with those above it before it, and its value."""
    if isinstance(content, dict):
        for key, value in content.items():
            whole = f"{path}.{key}" if path else key
            yield whole, value
            yield from _entries(value, whole)
    elif isinstance(content, list):
        for value in content:
            yield from _entries(value, path)


def _reason(key: str, value: Any) -> str | None:
    """Why an entry is refused, if it is."""
    if key in _NAMES_CODE and value:
        return "names code, and no code from a model's folder or a hub is run"
    if key.endswith("attn_implementation") and "/" in str(value):
        return "names code on a hub, and none is run"
    if (key in _NAMES_MODELS and value) or (key == "timm_model_name" and ":" in str(value)):
        return f"names a model that is not in this folder ({value})"
    if key == "tokenizer_kwargs" and isinstance(value, dict) and (others := sorted(set(value) - set(_TOKENIZER))):
        return f"sets {', '.join(others)}; only {', '.join(_TOKENIZER)} are passed on"
    return None


def _check_index(index: Any, path: Path, setting: str) -> None:
    for key, value in index.items() if isinstance(index, dict) else ():
        of_a_part = isinstance(value, list)
        if of_a_part and (key == "_class_name" or len(value) != 2 or value[0] not in _LIBRARIES):
            raise _refusal(setting, path, key, f"names code ({'.'.join(map(str, value))}) that is not diffusers' or transformers' own")


def _refusal(setting: str, path: Path, key: str, reason: str) -> ParamsError:
    return ParamsError(
        f"{setting}: {path}: `{key}` {reason}. Name another model; or, if this one works without that entry, take it out of the file."
    )
