"""What a half-done pack needs to go on: everybody's rows, moments and log, who sits where, how many find a place.

A concept's arithmetic depends on the shape of the batch that it is in, so a pack is saved as a whole and goes on as a whole:
then every later step has the very shapes that it would have had. The random streams follow from the steps.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ti_pipeline.inversion.state import COLUMNS, State
from ti_pipeline.tensor_file import write_tensors

FORMAT = "2"
_ROWS = ("rows", "first", "second", "best")


@dataclass(frozen=True)
class Saved:
    """One concept in a checkpoint; `key` is the digest of all that its training depends on."""

    concept: str
    key: str
    state: State


@dataclass
class Checkpoint:
    """A pack after `step` steps of its own: `capacity` places, who sits in them, who stepped back for want of memory,
    and who failed, as {concept: [Waiting.wanted, reason]}."""

    step: int = 0
    capacity: int = 0
    seats: list[Saved] = field(default_factory=list)
    parked: list[Saved] = field(default_factory=list)
    failed: dict[str, list[str]] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Atomic, and kilobytes a concept."""
    tensors, everyone = {}, [*checkpoint.seats, *checkpoint.parked]
    for i, saved in enumerate(everyone):
        tensors |= {f"{i}.{name}": getattr(saved.state, name).contiguous() for name in _ROWS}
        tensors[f"{i}.log"] = torch.tensor(saved.state.log, dtype=torch.float64).reshape(-1, len(COLUMNS))
        tensors[f"{i}.losses"] = torch.tensor(saved.state.losses, dtype=torch.float64)
    about = {
        "step": checkpoint.step,
        "capacity": checkpoint.capacity,
        "seats": [[saved.concept, saved.key, saved.state.step] for saved in everyone],
        "parked": len(checkpoint.parked),
        "failed": checkpoint.failed,
    }
    write_tensors(path, tensors, {"pack": json.dumps(about, ensure_ascii=False), "version": FORMAT, "format": "pt"})


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What to go on from; None when there is none, or it is unreadable: then everything starts anew."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("version") != FORMAT:
                return None
            about = json.loads(metadata["pack"])
            everyone = []
            for i, (concept, key, step) in enumerate(about["seats"]):
                rows = {name: file.get_tensor(f"{i}.{name}") for name in _ROWS}
                log, losses = (file.get_tensor(f"{i}.{name}").tolist() for name in ("log", "losses"))
                everyone.append(Saved(concept, key, State(step, **rows, log=log, losses=losses)))
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    seated = len(everyone) - about["parked"]
    return Checkpoint(about["step"], about["capacity"], everyone[:seated], everyone[seated:], about["failed"])


def concepts_in(path: Path) -> set[str]:
    """Who is in a checkpoint, by its header alone; empty when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {concept for concept, _, _ in json.loads((file.metadata() or {})["pack"])["seats"]}
    except (OSError, SafetensorError, ValueError, KeyError):
        return set()
