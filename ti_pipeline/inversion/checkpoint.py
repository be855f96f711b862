"""What half-done training needs to go on: rows, their moments, the log, the step. The random streams follow from the step."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ti_pipeline.embeddings.store import write_tensors
from ti_pipeline.inversion.adamw import Moments


@dataclass
class Checkpoint:
    """State after `step` steps: rows and moments float32 [1, n, d], log float64 [entries, columns]."""

    step: int
    rows: torch.Tensor
    moments: Moments
    log: torch.Tensor


def write_checkpoint(path: Path, key: str, state: Checkpoint) -> None:
    """Atomic, and kilobytes. `key` is the digest of all that the training depends on."""
    tensors = {"rows": state.rows, "first": state.moments.first, "second": state.moments.second, "log": state.log}
    write_tensors(path, tensors, {"key": key, "step": str(state.step), "format": "pt"})


def read_checkpoint(path: Path, key: str) -> Checkpoint | None:
    """The state to go on from; None when there is none, or it is unreadable or of another training: that starts anew."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            part = {name: file.get_tensor(name) for name in ("rows", "first", "second", "log")}
    except (OSError, SafetensorError):
        return None
    return Checkpoint(int(metadata["step"]), part["rows"], Moments(part["first"], part["second"]), part["log"])
