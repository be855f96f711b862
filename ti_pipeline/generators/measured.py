"""Precision, memory format and threads of a U-Net on a CPU: what measures best on this machine, measured once and kept.

A word's last bits depend on them, so what was chosen stands in the embedding's provenance and in the checkpoint's key, and a
later run on the same machine reads the choice instead of measuring again.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from ti_pipeline.files import digest_value, write_json

SAMPLES, LARGE, EDGE, TOKENS = 32, 10**8, 16, 24  # a network of more weights than LARGE fills a processor with few samples
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
log = logging.getLogger(__name__)
MARGIN = 1.15  # a choice must be so much faster than the one before it: noise decides nothing


@dataclass(frozen=True)
class Choice:
    """`precision` is float32 or bfloat16, `memory_format` a name in FORMATS; without `threads`, all that there are."""

    precision: str
    memory_format: str = "contiguous"
    threads: int | None = None


def known(digest: str, precisions: Sequence[str]) -> Choice | None:
    """What was chosen before on this machine for the generator with this digest."""
    try:
        return Choice(**json.loads(cache_file(digest, precisions).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def choose(unet: UNet2DConditionModel, digest: str, precisions: Sequence[str]) -> Choice:
    """The fastest of `precisions`, the first where none is clearly faster; measured on a copy of the float32 `unet`, and kept."""
    choice = _measured(deepcopy(unet), precisions)
    try:
        write_json(cache_file(digest, precisions), asdict(choice))
    except OSError as error:  # costs every process a measurement, and no run its end
        log.warning("the choice of precision cannot be kept: %s", error)
    return choice


def cache_file(digest: str, precisions: Sequence[str]) -> Path:
    """In the user's cache; another processor, torch, number of threads or generator has another name."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ti-pipeline"
    depends = [_processor(), torch.__version__, torch.get_num_threads(), digest, list(precisions)]
    return folder / f"cpu-{digest_value(depends)[:16]}.json"


def _measured(unet: UNet2DConditionModel, precisions: Sequence[str]) -> Choice:
    best, seconds = Choice(precisions[0]), None
    for precision in precisions:
        taken = _seconds(unet, Choice(precision))
        if seconds is None or taken * MARGIN < seconds:
            best, seconds = Choice(precision), taken
    last = Choice(best.precision, "channels_last")
    best = last if _seconds(unet, last) * MARGIN < seconds else best
    return replace(best, threads=_threads(unet, best))


def _threads(unet: UNet2DConditionModel, choice: Choice) -> int:
    """All, or half of them as often as that is clearly faster: what shares a core or waits for memory slows the others."""
    most = threads = torch.get_num_threads()
    if most == 1 or os.getloadavg()[0] > most / 2:  # who else is at work now would decide for always
        return most
    seconds = _seconds(unet, choice, time.perf_counter)
    try:
        while threads > 1:
            torch.set_num_threads(threads // 2)
            taken = _seconds(unet, choice, time.perf_counter)
            if taken * MARGIN >= seconds:
                break
            threads, seconds = threads // 2, taken
    finally:
        torch.set_num_threads(most)
    return threads


def _seconds(unet: UNet2DConditionModel, choice: Choice, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds of a pass forward and back to the text on small latents, after one that warms up; of all threads together by default."""
    dtype = getattr(torch, choice.precision)
    unet.to(dtype).to(memory_format=FORMATS[choice.memory_format])
    unet.set_attn_processor(attention(dtype))
    samples = SAMPLES if sum(weight.numel() for weight in unet.parameters()) <= LARGE else 1
    streams = torch.Generator().manual_seed(0)
    latents = torch.randn(samples, unet.config.in_channels, EDGE, EDGE, generator=streams).to(dtype)
    hidden = torch.randn(samples, TOKENS, unet.config.cross_attention_dim, generator=streams).to(dtype).requires_grad_()
    for _ in range(2):
        began = clock()
        torch.autograd.grad(unet(latents, 500, hidden).sample.float().square().mean(), hidden)
        seconds = clock() - began
    return seconds


def attention(dtype: torch.dtype) -> AttnProcessor | AttnProcessor2_0:
    """On a CPU fused attention in bfloat16 is several times slower than the plain one when it has to go backwards."""
    return AttnProcessor2_0() if dtype == torch.float32 else AttnProcessor()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return "".join(line for line in lines[: lines.index("")] if line.startswith(("model", "cpu family", "stepping", "flags")))
    except (OSError, ValueError):
        return platform.processor() or platform.machine()
