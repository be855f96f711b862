"""How many concepts a device takes in one pass: measured, not guessed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

ENOUGH = {"cpu": 96, "cuda": 512, "mps": 64}  # samples in a pass from which a device of the kind is no faster (benchmarks/training)
SHARE = 0.8  # of the free memory; the rest is for what the measurement did not see
PROBES = (1, 3)  # concepts in the two passes that are measured


def largest_pack(device: torch.device, samples: int, concepts: int, run: Callable[[int], object]) -> int:
    """Concepts for one pass, at most `concepts`, of `samples` samples each; `run` makes a pass with so many concepts.

    Two passes tell what a further concept needs. Where memory cannot be measured, the device's speed is the limit.
    """
    most = worthwhile(device, samples, concepts)
    if most == 1:
        return 1
    few, more = (_peak(device, partial(run, probe)) for probe in PROBES)
    free = free_bytes(device)
    if few is None or more is None or free is None or more <= few:
        return most
    return fitting(most, few, (more - few) / (PROBES[1] - PROBES[0]), free)


def worthwhile(device: torch.device, samples: int, concepts: int) -> int:
    """Concepts of `samples` samples each in a pass, at most `concepts`, from which on the device is no faster."""
    return max(1, min(concepts, ENOUGH[device.type] // samples))


def fitting(most: int, first: float, each: float, free: float) -> int:
    """Concepts, at most `most`, of which the first needs so many bytes and `each` further one so many, where so many are free.

    A number that memory limits is rounded down to a power of two, so that small changes in what else runs on the machine change nothing.
    """
    found = max(1, 1 + int((SHARE * free - first) / each))
    return most if found >= most else 1 << (found.bit_length() - 1)


def _peak(device: torch.device, run: Callable[[], object]) -> int | None:
    """Bytes that `run` needs beyond what is there before it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts anew
    except OSError:
        run()
        return None
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def free_bytes(device: torch.device) -> int | None:
    """Of the device's memory, or of the machine's; None where that is not known."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min(available, _left_in_group())


def _left_in_group() -> int:
    """What a container's limit leaves (cgroup v2); without one, everything."""
    try:
        group = Path("/sys/fs/cgroup")
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
