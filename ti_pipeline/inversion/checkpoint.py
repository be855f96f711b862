"""What a half-done pack needs to go on: everybody's leaves, moments and log, who sits where, how many find a place.

A concept's arithmetic depends on the shape of the batch that it is in, so a pack is saved as a whole and goes on as a whole:
then every later step has the very shapes that it would have had. The random streams follow from the steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ti_pipeline.inversion.leaves import Learning
from ti_pipeline.inversion.setups.setup import Learnable
from ti_pipeline.inversion.state import COLUMNS, State
from ti_pipeline.tensor_file import write_tensors

FORMAT = "4"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Saved:
    """One concept in a checkpoint; `key` is the digest of all that its training depends on.

    Of what it learns there are the leaves and lengths alone: the rest is as the setup began.
    """

    concept: str
    key: str
    state: State
    learning: Learning


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
    """Atomic, and kilobytes a concept where the leaves are rows."""
    tensors: Tensors = {}
    everyone = [*checkpoint.seats, *checkpoint.parked]
    for i, saved in enumerate(everyone):
        tensors |= {f"{i}.{name}": tensor for name, tensor in _tensors(saved).items()}
    about = {
        "step": checkpoint.step,
        "capacity": checkpoint.capacity,
        "seats": [[saved.concept, saved.key, saved.state.step, saved.learning.one.lengths] for saved in everyone],
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
            tensors: list[Tensors] = [{} for _ in about["seats"]]
            for key in file.keys():  # noqa: SIM118
                place, _, name = key.partition(".")
                tensors[int(place)][name] = file.get_tensor(key)
        seats = zip(about["seats"], tensors, strict=True)
        everyone = [_saved(concept, key, step, lengths, of) for (concept, key, step, lengths), of in seats]
    except (OSError, SafetensorError, ValueError, KeyError, IndexError):
        return None
    seated = len(everyone) - about["parked"]
    return Checkpoint(about["step"], about["capacity"], everyone[:seated], everyone[seated:], about["failed"])


def concepts_in(path: Path) -> set[str]:
    """Who is in a checkpoint, by its header alone; empty when it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return {concept for concept, *_ in json.loads((file.metadata() or {})["pack"])["seats"]}
    except (OSError, SafetensorError, ValueError, KeyError):
        return set()


def _tensors(saved: Saved) -> Tensors:
    state, learning = saved.state, saved.learning
    tensors = {
        "log": torch.tensor(state.log, dtype=torch.float64).reshape(-1, len(COLUMNS)),
        "losses": torch.tensor(state.losses, dtype=torch.float64),
    }
    kinds: dict[str, Mapping[str, torch.Tensor]] = {"leaf": learning.one.leaves, "best": state.best}
    kinds |= {"first": learning.first, "second": learning.second}
    kinds |= {f"kept.{step}": leaves for step, leaves in state.kept.items()}
    return tensors | {f"{kind}.{name}": tensor for kind, each in kinds.items() for name, tensor in each.items()}


def _saved(concept: str, key: str, step: int, lengths: dict[str, int], tensors: Tensors) -> Saved:
    def named(kind: str) -> Tensors:
        return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}

    steps = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("kept.")})
    kept: dict[int, Mapping[str, torch.Tensor]] = {step: named(f"kept.{step}.") for step in steps}
    state = State(step, tensors["log"].tolist(), tensors["losses"].tolist(), named("best."), kept)
    return Saved(concept, key, state, Learning(Learnable(named("leaf."), lengths), named("first."), named("second.")))
