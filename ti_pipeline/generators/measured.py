"""Precision, memory format and threads of a U-Net on a CPU: what measures best on this machine, measured once and kept.

A word's last bits depend on them, so what was chosen stands in the embedding's provenance and in the checkpoint's key, and a
later run on the same machine reads the choice instead of measuring again. What a busy machine shows is used and not kept.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from ti_pipeline.generators.latent_diffusion import LatentDiffusion
from ti_pipeline.remembered import remember, remembered

SAMPLES, LARGE, EDGE, TOKENS = 32, 10**8, 16, 24  # a network of more weights than LARGE fills a processor with few samples
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
log = logging.getLogger(__name__)
MARGIN = 1.15  # a choice must be so much faster than the one before it, and repeat itself so well: noise decides nothing
ROUNDS = 2
KIND = "cpu"  # in the names of what is kept
FORMAT = 2  # of what is kept: raised whenever it is measured in another way


@dataclass(frozen=True)
class Choice:
    """`precision` is float32 or bfloat16, `memory_format` a name in FORMATS; without `threads`, all that there are."""

    precision: str
    memory_format: str = "contiguous"
    threads: int | None = None


def known(digest: str, precisions: Sequence[str]) -> Choice | None:
    """What was chosen before on this machine for the generator with this digest."""
    try:
        return Choice(**remembered(KIND, depends(digest, precisions)))
    except TypeError:  # nothing, or something else
        return None


def choose(generator: LatentDiffusion, precisions: Sequence[str]) -> Choice:
    """The fastest of `precisions`, the first where none is clearly faster; measured on a copy of the float32 U-Net.

    Kept unless others were at work: then the next process measures again.
    """
    choice, steady = _measured(replace(generator, denoiser=deepcopy(generator.denoiser)), precisions)
    if not steady:
        log.info("the machine is busy: what was measured is not kept")
        return choice
    remember(KIND, depends(generator.digest, precisions), asdict(choice))
    return choice


def depends(digest: str, precisions: Sequence[str]) -> list[Any]:
    """What a choice holds for: this processor, torch, number of threads and generator."""
    return [FORMAT, _processor(), torch.__version__, torch.get_num_threads(), digest, list(precisions)]


def _measured(generator: LatentDiffusion, precisions: Sequence[str]) -> tuple[Choice, bool]:
    """The best choice, and whether the machine was quiet enough to believe it for always.

    On a busy one precision alone is measured, by the time that processors work: it makes the most of a difference.
    """
    most, idle = torch.get_num_threads(), not _busy()
    best, steady = _best(generator, [Choice(precision) for precision in precisions], time.process_time)
    best = replace(best, threads=most)
    if not idle:
        return best, False
    best, again = _best(generator, [best, replace(best, memory_format="channels_last")], time.process_time)
    steady = steady and again
    while (threads := best.threads or 1) > 1:  # what shares a core or waits for memory slows the others
        fewer, again = _best(generator, [best, replace(best, threads=threads // 2)], time.perf_counter)
        steady = steady and again
        if fewer == best:
            break
        best = fewer
    return best, steady and not _busy()


def _busy() -> bool:
    """Whether others have kept half of this process's threads at work in the last minute."""
    return os.getloadavg()[0] > max(1, torch.get_num_threads()) / 2


def _best(generator: LatentDiffusion, choices: Sequence[Choice], clock: Callable[[], float]) -> tuple[Choice, bool]:
    """The fastest of `choices`, an earlier one unless a later is clearly faster; and whether all repeated themselves.

    They take turns, so that what disturbs one disturbs the others, and the least of each counts: others at work only ever add.
    """
    if len(choices) == 1:
        return choices[0], True
    turns = [[_seconds(generator, choice, clock) for choice in choices] for _ in range(ROUNDS)]
    least, second = zip(*(sorted(taken)[:2] for taken in zip(*turns, strict=True)), strict=True)
    best = 0
    for place in range(1, len(choices)):
        if least[place] * MARGIN < least[best]:
            best = place
    return choices[best], all(more <= less * MARGIN for less, more in zip(least, second, strict=True))


def _seconds(generator: LatentDiffusion, choice: Choice, clock: Callable[[], float]) -> float:
    """Seconds by `clock` of a pass forward and back to the text on small latents, after one that warms up."""
    most, dtype, unet = torch.get_num_threads(), getattr(torch, choice.precision), generator.unet
    unet.to(dtype).to(memory_format=FORMATS[choice.memory_format])
    unet.set_attn_processor(attention(dtype))
    probed = replace(generator, dtype=dtype)
    samples = SAMPLES if sum(weight.numel() for weight in unet.parameters()) <= LARGE else 1
    streams = torch.Generator().manual_seed(0)
    latents = torch.randn(samples, unet.config.in_channels, EDGE, EDGE, generator=streams).to(dtype)
    condition = probed.any_condition(samples, TOKENS, streams)
    hidden = condition.parts["hidden"].requires_grad_()
    torch.set_num_threads(choice.threads or most)
    try:
        for _ in range(2):
            began = clock()
            torch.autograd.grad(probed.predict(latents, torch.tensor(500), condition).float().square().mean(), hidden)
            seconds = clock() - began
    finally:
        torch.set_num_threads(most)
    return seconds


def attention(dtype: torch.dtype) -> AttnProcessor | AttnProcessor2_0:
    """On a CPU fused attention in bfloat16 is several times slower than the plain one when it has to go backwards."""
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    return AttnProcessor2_0() if dtype == torch.float32 else AttnProcessor()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "".join(line for line in lines[: lines.index("")] if line.startswith(("model", "cpu family", "stepping", "flags")))
    except (OSError, ValueError):
        return platform.processor() or platform.machine()
