"""What the ranker's CLIP sees in the candidates, computed while they are in memory and kept for the stage `rank`.

It saves time and changes no result: `rank` believes it where CLIP and the pictures are the same, and else looks itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from ti_pipeline.tensor_file import write_tensors


class Clip(Protocol):
    """`images` gives L2-normalised embeddings [n, d], float32; `digest` is that of everything that they depend on."""

    @property
    def digest(self) -> str: ...

    def images(self, pictures: list[Image.Image]) -> np.ndarray: ...


def write_looks(path: Path, clip: str, digests: Sequence[str], vectors: np.ndarray) -> None:
    """`vectors` float32 [n, d] of the pictures whose files have the SHA-256 `digests`, as the CLIP with the digest `clip` sees them."""
    import torch

    write_tensors(path, {"images": torch.from_numpy(vectors)}, {"clip": clip, "digests": json.dumps(list(digests))})


def read_looks(path: Path, clip: str) -> dict[str, np.ndarray]:
    """Vector [d] of each picture by its file's SHA-256; nothing when another CLIP has looked, or none, or the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("clip") != clip:
                return {}
            return dict(zip(json.loads(about["digests"]), file.get_tensor("images").numpy(), strict=True))
    except (OSError, SafetensorError, ValueError, KeyError):
        return {}
