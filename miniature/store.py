"""Where the recipe keeps its work, and how a training goes on after a kill."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from ti_pipeline.files import atomic


def work_folder() -> Path:
    """`MINIATURE_WORK`, by default `build/miniature`: packages, pictures, latents, checkpoints."""
    folder = Path(os.environ.get("MINIATURE_WORK", "build/miniature"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def of_another_recipe(path: Path) -> SystemExit:
    """What ends a call that finds work in its folder that it can't go on from; nothing is removed unasked."""
    return SystemExit(f"{path} was made by another version of the recipe: remove it, and its part begins anew.")


class Checkpoint:
    """What a training needs to go on after a kill: parts with a `state_dict`, the step, the seconds spent."""

    def __init__(self, path: Path, every: float = 90.0, writes: bool = True, **parts):
        self.path, self.every, self.writes, self.parts = path, every, writes, parts
        self.step, self.seconds, self._saved, self._means, self._taken = 0, 0.0, time.monotonic(), {}, 0
        if path.exists():
            stored = torch.load(path, map_location="cpu", weights_only=True)
            self.step, self.seconds = stored["step"], stored["seconds"]
            try:
                for name, part in parts.items():
                    part.load_state_dict(stored["parts"][name])
            except (KeyError, RuntimeError, ValueError) as error:
                raise of_another_recipe(path) from error

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
        """Write the state; nothing when this process has taken no step (another may be training) or does not write."""
        if not self._taken or not self.writes:
            return
        means = " ".join(f"{name} {sum(v) / len(v):.4f}" for name, v in self._means.items() if v)
        print(f"{time.strftime('%H:%M:%S')} {self.path.stem}: step {self.step}, {self.seconds:.0f} s, {means}", flush=True)
        self._means = {}
        state = {"step": self.step, "seconds": self.seconds, "parts": {n: p.state_dict() for n, p in self.parts.items()}}
        with atomic(self.path) as temporary:
            torch.save(state, temporary)
        self._saved = time.monotonic()
