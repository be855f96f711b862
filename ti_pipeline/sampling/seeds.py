"""Where a candidate's seed comes from: what it is a picture of, never when or beside what it is made."""

from __future__ import annotations

import torch

from ti_pipeline.files import digest_value

BITS = 32  # the seeds that designers' tools take


def candidate_seed(seed: int, concept: str, brief: str, index: int) -> int:
    """The seed of the concept's candidate number `index` for the brief, in [0, 2³²).

    `brief` is the text with `{token}` in it, so briefs may be added, dropped or moved without changing the others' pictures.
    """
    return int(digest_value(["candidate", seed, concept, brief, index])[: BITS // 4], 16)


def initial_noise(seeds: list[int], shape: tuple[int, int, int]) -> torch.Tensor:
    """Standard normal noise `[n, channels, height, width]`, float32 on the CPU, each from a generator of its own."""
    return torch.stack([torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed)) for seed in seeds])
