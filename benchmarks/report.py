"""Processes that are measured as a whole, and results kept with the machine and the versions that they are from."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from ti_pipeline.files import write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).parent / "results"
Row = dict[str, str | float | int | None]


@dataclass(frozen=True)
class Process:
    """What a finished process took: wall time, time on processors, peak resident memory; `said` is the JSON of its last line, if any."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    said: dict


def run(command: list[str]) -> Process:
    """Run to the end; raises RuntimeError with the end of its stderr when it fails."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, env=environment())
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - began
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}:\n{text[-2000:]}")
    last = text.strip().splitlines()[-1:] or [""]
    said = json.loads(last[0]) if last[0].startswith("{") else {}
    return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, said)


def environment() -> dict[str, str]:
    """Every process may use as many threads as this one, so that two sides of a comparison have the same machine."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}


def machine() -> Row:
    """Where it was measured and with what."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("torch", "diffusers", "transformers", "open_clip_torch")
    return {
        "cpu": model,
        "cores": cores,
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def keep(name: str, settings: dict, rows: list[Row], notes: list[str], where: Row) -> None:
    """Write `results/<name>.json` and `.md`, and print the table."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"# {name}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(row.get(column)) for column in columns)} |" for row in rows]
    lines += ["", *(f"- {note}" for note in notes), "", f"Settings: {json.dumps(settings)}", "", f"Machine: {json.dumps(where)}", ""]
    text = "\n".join(lines)
    write_json(RESULTS / f"{name}.json", {"settings": settings, "rows": rows, "notes": notes, "machine": where})
    write_text(RESULTS / f"{name}.md", text)
    print(text)


def _cell(value: str | float | int | None) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
