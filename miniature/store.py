"""Where the recipe keeps its work, and how a file there is written whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import torch


def work_folder() -> Path:
    """`MINIATURE_WORK`, by default `build/miniature`: packages, pictures, latents, checkpoints."""
    folder = Path(os.environ.get("MINIATURE_WORK", "build/miniature"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def atomic_save(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` on a temporary name in the same folder, then rename it to `path`."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Checkpoint:
    """What a training needs to go on after a kill: parts with a `state_dict`, the step, the seconds spent."""

    def __init__(self, path: Path, every: float = 90.0, **parts):
        self.path, self.every, self.parts = path, every, parts
        self.step, self.seconds, self._saved, self._means, self._taken = 0, 0.0, time.monotonic(), {}, 0
        if path.exists():
            stored = torch.load(path, map_location="cpu", weights_only=True)
            self.step, self.seconds = stored["step"], stored["seconds"]
            for name, part in parts.items():
                part.load_state_dict(stored["parts"][name])

    def tick(self, seconds: float, **losses: torch.Tensor) -> None:
        """Count one step; save and say how it goes when it is time."""
        self.step += 1
        self._taken += 1
        self.seconds += seconds
        for name, value in losses.items():
            self._means.setdefault(name, []).append(float(value.detach()))
        if time.monotonic() - self._saved > self.every:
            self.save()

    def save(self) -> None:
        """Write the state; nothing when this process has taken no step (another may be training)."""
        if not self._taken:
            return
        means = " ".join(f"{name} {sum(v) / len(v):.4f}" for name, v in self._means.items() if v)
        print(f"{time.strftime('%H:%M:%S')} {self.path.stem}: step {self.step}, {self.seconds:.0f} s, {means}", flush=True)
        self._means = {}
        state = {"step": self.step, "seconds": self.seconds, "parts": {n: p.state_dict() for n, p in self.parts.items()}}
        atomic_save(self.path, lambda path: torch.save(state, path))
        self._saved = time.monotonic()
