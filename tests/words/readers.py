"""What other tools' own readers make of a word's file: their rules written anew, from what their sources do."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ti_pipeline.generators.clip_tokenizer import clip_tokenizer

Rows = dict[str, torch.Tensor]  # [n, d] by text encoder
KNOWN = {768: "v1", 1024: "v2"}


class Unread(Exception):
    """What the tool would say, or would not say and pass over."""


def a1111(path: Path) -> tuple[str, Rows]:
    """`textual_inversion.create_embedding_from_data`: SDXL's pair, or a dict of one key; the word is the file's stem."""
    tensors = load_file(path)
    if set(tensors) == {"clip_l", "clip_g"}:
        rows = {name: _flat(rows) for name, rows in tensors.items()}
    elif len(tensors) == 1:
        rows = {"text": _flat(next(iter(tensors.values())))}
    else:
        raise Unread("couldn't identify it as either textual inversion embedding or diffuser concept")
    if "text" in rows and rows["text"].shape[1] not in KNOWN:
        raise Unread("another width is skipped without a word")
    return path.stem, rows


forge = a1111


def comfyui(path: Path, encoders: dict[str, int]) -> tuple[str, Rows]:
    """`sd1_clip.load_embed`: the key of each text encoder, else the first value; of another width the word is lost."""
    tensors, rows = load_file(path), {}
    for encoder, width in encoders.items():
        found = tensors.get(encoder, next(iter(tensors.values())))
        if found.shape[-1] != width:
            raise Unread("shape mismatch when trying to apply embedding, embedding will be ignored")
        rows[encoder] = _flat(found)
    return f"embedding:{path.stem}", rows


def invoke(path: Path) -> tuple[str, Rows]:
    """Its probe: `emb_params` by its last number, SDXL's pair, else the first number of whatever comes first."""
    tensors = load_file(path)
    if "emb_params" in tensors:
        width, rows = tensors["emb_params"].shape[-1], {"text": _flat(tensors["emb_params"])}
    elif {"clip_l", "clip_g"} == set(tensors):
        return f"<{path.stem}>", {name: _flat(rows) for name, rows in tensors.items()}
    else:
        first = next(iter(tensors.values()))
        width, rows = first.shape[0], {"text": _flat(first)}
    if width not in KNOWN:
        raise Unread(f"unrecognized token dimension {width}")
    return f"<{path.stem}>", rows


def kohya(path: Path) -> tuple[str, Rows]:
    """`gen_img.py`: one key, or SDXL's pair; the stem, and the stem with a number for each further vector, must be new tokens."""
    tensors = load_file(path)
    rows = {name: _flat(rows) for name, rows in tensors.items()}
    if set(rows) != {"clip_l", "clip_g"}:
        if len(rows) != 1:
            raise Unread("multiple embeddings are not supported")
        rows = {"text": next(iter(rows.values()))}
    for token in (path.stem, *(f"{path.stem}{i + 1}" for i in range(len(next(iter(rows.values()))) - 1))):
        if token in vocabulary() or f"{token}</w>" in vocabulary():
            raise Unread(f"token string {token} is already in the tokenizer")
    return path.stem, rows


def onetrainer(path: Path) -> Rows:
    """Its loaders: `emp_params`, or a key for each text encoder by their names."""
    tensors = load_file(path)
    if "emp_params" in tensors:
        return {"text": _flat(tensors["emp_params"])}
    if not {"clip_l"} <= set(tensors) <= {"clip_l", "clip_g", "t5"}:
        raise Unread("could not load embedding")
    return {name: _flat(rows) for name, rows in tensors.items()}


def swarmui(path: Path) -> tuple[str, dict[str, str]]:
    """Its list of models: the class by `modelspec.architecture` or by the width of `emb_params`, and what its card shows."""
    with safe_open(path, framework="pt") as file:
        about = {key.removeprefix("modelspec."): value for key, value in file.metadata().items() if key.startswith("modelspec.")}
        names = list(file.keys())
        if "emb_params" in names and file.get_slice("emb_params").get_shape()[-1] not in KNOWN:
            raise Unread("no class of models")
    if about["architecture"].partition("/")[2] != "textual-inversion":
        raise Unread("no embedding")
    return f"<embed:{path.stem}>", about


def sd_concepts(folder: Path) -> tuple[str, str, Rows]:
    """A repository's files: the token, what it is, and the one entry of `learned_embeds.bin`."""
    token = (folder / "token_identifier.txt").read_text()
    ((key, rows),) = torch.load(folder / "learned_embeds.bin", weights_only=True).items()
    if key != token:
        raise Unread(f"{token} is not in it")
    return token, (folder / "type_of_concept.txt").read_text(), {"text": _flat(rows)}


@cache
def vocabulary() -> frozenset[str]:
    return frozenset(clip_tokenizer().get_vocab())


def _flat(rows: torch.Tensor) -> torch.Tensor:
    return rows.reshape(-1, rows.shape[-1])
