"""The stage `train` over a workspace as one process, which says at the end how fast it was in steady state."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.collection import settings
from ti_pipeline.files import read_table
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.workspace import Workspace


def main() -> None:
    workspace, params = Workspace.at(Path(sys.argv[1]), "concepts"), settings(*sys.argv[3:])
    names = sys.argv[2].split(",") if sys.argv[2] else None
    moments: list[tuple[float, float, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        moments.append((time.perf_counter(), time.process_time(), done))

    outcomes = run_stage(TRAIN, Run.over(workspace, params, names, report=progress))
    lost = [outcome for outcome in outcomes if not outcome.ok]
    if lost:
        sys.exit(f"lost: {lost}")
    first, last = moments[min(1, len(moments) - 2)], moments[-1]
    samples = params.train.batch_size * params.train.gradient_accumulation
    steps = [max(row["step"] for row in read_table(workspace.training(outcome.concept))) for outcome in outcomes]
    seconds, busy, _ = (after - before for after, before in zip(last, first, strict=True))
    done = sum(steps) - first[2]  # not what progress says, to which a concept that stopped early has done all of its steps
    said = {"samples_a_second": done * samples / seconds, "samples_a_cpu_second": done * samples / busy}
    print(json.dumps(said | {"mean_steps": sum(steps) / len(steps)}))


if __name__ == "__main__":
    main()
