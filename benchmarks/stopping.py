"""Steps and quality with and without early stopping, on things that the miniature has never seen.

    python -m benchmarks.stopping            20 concepts, 300 steps, the criterion of params.yaml
    python -m benchmarks.stopping --stop stop_window=60,stop_ratio=0.15 --stop stop_window=100,stop_ratio=0.25
    python -m benchmarks.stopping --quick    about a minute

One training that looks at the evaluation batch and never stops says for a grid of windows and ratios when it would have stopped;
the quality is measured for the criteria that --stop names.

Likeness is the judge's, editability the ranker's, as in the stage `evaluate`. The artwork comes from npm, or from
MINIATURE_WORK where a folder is set that has it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.collection import settings, unseen
from benchmarks.report import Row, keep, machine
from ti_pipeline.evaluation.report import LEARNT, concept_path, read_report
from ti_pipeline.files import read_table
from ti_pipeline.inversion.stopping import has_converged
from ti_pipeline.params import Params, Train
from ti_pipeline.stages.evaluate import EVALUATE
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.workspace import Outcome, Workspace

SHARED = "Steps and quality do not depend on what else the machine does at the time; the seconds do."
MEASURES = ("reconstruction", "editability")
WINDOWS, RATIOS = (40, 60, 100, 150), (0.05, 0.1, 0.15, 0.25, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--set", action="append", default=[], dest="sets", help="section.key=value, for both sides")
    parser.add_argument("--stop", action="append", default=[], help="key=value,key=value of `train`: a criterion to measure; repeatable")
    parser.add_argument("--quick", action="store_true", help="end within about a minute")
    args = parser.parse_args()
    if args.quick:
        args.concepts, args.steps = 2, 12
        args.sets += ["evaluate.samples=2", "evaluate.samples_per_prompt=1", "evaluate.steps=3", "evaluate.bootstrap=50"]
        args.stop = args.stop or ["evaluate_every=2,stop_window=4,stop_ratio=0.5"]
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        workspace = unseen(Path(folder), args.concepts)
        sets = [f"train.steps={args.steps}", *args.sets]
        whole = measured(workspace, settings(*sets))
        rows, notes = [_row("all steps", whole)], [SHARED]
        for criterion in args.stop or [""]:
            chosen = [f"train.{each}" for each in criterion.split(",") if each]
            stopped = measured(workspace, settings(*sets, "train.early_stopping=dvar", *chosen))
            name = f"dvar, {criterion or 'as in params.yaml'}"
            rows.append(_row(name, stopped) | {"× fewer steps": _mean(whole, "steps") / _mean(stopped, "steps")})
            rows[-1]["× faster"] = whole["seconds"] / stopped["seconds"]
            for measure in MEASURES:
                change = np.array(stopped[measure]) - np.array(whole[measure])
                low, high = interval(change)
                notes.append(f"{name}: {measure} changes by {change.mean():+.4f} [{low:+.4f}, {high:+.4f}] (95 %, over concepts).")
        notes += grid(workspace, settings(*sets, "train.early_stopping=dvar"))
    keep("stopping-quick" if args.quick else "stopping", vars(args), rows, notes, where)


def grid(workspace: Workspace, params: Params) -> list[str]:
    """Mean steps for windows and ratios, from the losses of one training that does all its steps."""
    never = params.model_copy(update={"train": params.train.model_copy(update={"stop_window": 2 * params.train.steps})})
    looked = trained(workspace, never)
    lines = []
    for window in WINDOWS:
        ends = []
        for ratio in RATIOS:
            criterion = params.train.model_copy(update={"stop_window": window, "stop_ratio": ratio})
            steps = [stop_step(workspace, outcome.concept, criterion) for outcome in looked]
            ends.append(f"ratio {ratio:g}: {np.mean(steps):.0f}")
        lines.append(f"Mean steps with a window of {window} would be: {', '.join(ends)}.")
    return lines


def stop_step(workspace: Workspace, concept: str, train: Train) -> int:
    """The step at which `train`'s criterion ends a training with the losses that the concept's log has."""
    looks = [(row["step"], row["evaluation"]) for row in read_table(workspace.training(concept)) if row["evaluation"] is not None]
    losses = [loss for _, loss in looks]
    return next((step for n, (step, _) in enumerate(looks, start=1) if has_converged(losses[:n], train)), looks[-1][0])


def trained(workspace: Workspace, params: Params) -> list[Outcome]:
    shutil.rmtree(workspace.artifacts / "embeddings", ignore_errors=True)
    outcomes = run_stage(TRAIN, Run.over(workspace, params))
    if lost := [outcome for outcome in outcomes if not outcome.ok]:
        raise RuntimeError(f"lost: {lost}")
    return outcomes


def measured(workspace: Workspace, params: Params) -> dict:
    """Steps, and the judge's numbers of every concept; `seconds` of the training."""
    shutil.rmtree(workspace.artifacts / "evaluation", ignore_errors=True)
    began = time.perf_counter()
    outcomes = trained(workspace, params)
    seconds = time.perf_counter() - began
    if lost := [outcome for outcome in run_stage(EVALUATE, Run.over(workspace, params)) if not outcome.ok]:
        raise RuntimeError(f"lost: {lost}")
    slugs = [outcome.concept for outcome in outcomes]
    reports = [read_report(concept_path(workspace, slug))["setups"][LEARNT] for slug in slugs]
    steps = [max(row["step"] for row in read_table(workspace.training(slug))) for slug in slugs]
    return {"seconds": seconds, "steps": steps} | {name: [report[name]["value"] for report in reports] for name in MEASURES}


def interval(values: np.ndarray, draws: int = 4000) -> tuple[float, float]:
    """95 % bootstrap interval of the mean."""
    means = values[np.random.default_rng(0).integers(0, len(values), (draws, len(values)))].mean(axis=1)
    return tuple(np.quantile(means, (0.025, 0.975)))


def _row(name: str, of: dict) -> Row:
    return {"training": name, "concepts": len(of["steps"]), "mean steps": _mean(of, "steps"), "seconds": of["seconds"]} | {
        measure: _mean(of, measure) for measure in MEASURES
    }


def _mean(of: dict, key: str) -> float:
    return float(np.mean(of[key]))


if __name__ == "__main__":
    main()
