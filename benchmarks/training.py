"""Concepts an hour and samples a second: this trainer against a plain one, and against any other that is named.

python -m benchmarks.training                      24 concepts x 300 steps x batch 4 on the miniature
python -m benchmarks.training --quick              about a minute
python -m benchmarks.training --peer "python script.py --model {model} --images {images} --token {token}
    --initializer {initializer} --steps {steps} --batch {batch} --output {output}"
python -m benchmarks.training --model sd15         the architecture of Stable Diffusion 1.5 with random weights
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from diffusers import StableDiffusionPipeline

import ti_pipeline
from benchmarks.collection import recoloured
from benchmarks.report import Process, Row, keep, machine, run
from ti_pipeline.generators.generator import choose_device
from ti_pipeline.generators.loading import choose_dtype
from ti_pipeline.workspace import Workspace

MODEL = Path(ti_pipeline.__file__).parent / "miniature" / "generator"
SETUPS = Path(__file__).parents[1] / "examples" / "comparison.yaml"
PLAIN = (
    f"{shlex.quote(sys.executable)} -m benchmarks.plain_trainer --model {{model}} --images {{images}} --token {{token}} "
    "--initializer {initializer} --steps {steps} --batch {batch} --output {output}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("miniature", "sd15"), default="miniature")
    parser.add_argument("--concepts", type=int, default=24)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--peer", help="a command with {model}, {images}, {token}, {initializer}, {steps}, {batch} and {output}")
    parser.add_argument("--plain-concepts", type=int, help="let the plain trainers do so many only, and scale their time")
    parser.add_argument("--only", default="", help='begins the names of those of ours that are measured, such as "ours, quick"')
    parser.add_argument("--quick", action="store_true", help="end within about a minute")
    args = parser.parse_args()
    if args.model == "sd15":
        from benchmarks.stable_diffusion import measure

        measure(args.quick)
        return
    if args.quick:
        args.concepts, args.steps, args.plain_concepts = 4, 12, 1
    with tempfile.TemporaryDirectory() as folder:
        compare(args, Path(folder))


def compare(args: argparse.Namespace, folder: Path) -> None:
    where = machine()
    workspace = recoloured(folder, args.concepts)
    limit = min(args.plain_concepts or args.concepts, args.concepts)
    rows = [others("plain trainer", PLAIN, workspace, args, limit)]
    if args.peer:
        rows.append(others("peer", args.peer, workspace, args, limit))
    sets = [f"train.steps={args.steps}", f"train.batch_size={args.batch}"]
    quick = yaml.safe_load(SETUPS.read_text())["compare"]["setups"]["quick"] | {"steps": args.steps // 4}
    stopping = ["train.early_stopping=dvar", *(["train.evaluate_every=2", "train.stop_window=4"] if args.quick else [])]
    for name, extra in (
        ("ours, float32", ["generator.precision=float32"]),
        ("ours", []),
        ("ours, early stopping", stopping),
        ("ours, quick", [f"train.{key}={value}" for key, value in quick.items()]),
        ("ours, pack of 1, float32, first concept", ["train.pack=1", "generator.precision=float32"]),
    ):
        if not name.startswith(args.only):
            continue
        alone = "pack of 1" in name
        names = [sorted(path.name for path in workspace.concepts.iterdir())[0]] if alone else []
        rows.append(ours(name, workspace, [*sets, *extra], 1 if alone else args.concepts, names))
    for row in rows:
        row["× concepts"] = row["concepts an hour"] / rows[0]["concepts an hour"]
        row["× concepts, CPU"] = row["concepts"] * rows[0]["CPU seconds"] / row["CPU seconds"] / rows[0]["concepts"]
        for column, rate in (("× samples", "samples a second"), ("× samples, CPU", "samples a CPU second")):
            row[column] = row[rate] / rows[0][rate] if row[rate] else None
    notes = ["Whole processes: start-up, loading, training, writing. Pictures were validated before, which took part on neither side."]
    notes.append("CPU seconds are those of all threads together: the fairer number where others use the machine at the same time.")
    notes.append(f"Quick is the setup of that name in examples/{SETUPS.name}, in a quarter of the steps (docs/experiments.md).")
    if limit < args.concepts:
        notes.append(
            f"The plain trainers did {limit} of {args.concepts} concepts; concepts an hour need no more, as they do one a process."
        )
    if args.quick:
        notes.append("A quick run: start-up outweighs the training, so its ratios say nothing.")
    float32 = choose_dtype("auto", choose_device("auto")) == torch.float32  # a processor that does not multiply in bfloat16
    keep("training-quick" if args.quick else "training-float32" if float32 else "training", vars(args), rows, notes, where)


def others(name: str, command: str, workspace: Workspace, args: argparse.Namespace, limit: int) -> Row:
    """One process a concept, one after another."""
    made, model = [], workspace.root / "model"
    if not model.exists():  # in float32, as the published ones: scripts that take a file's precision train no half numbers on a CPU
        StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32, safety_checker=None).save_pretrained(model)
    for folder in sorted(path for path in workspace.concepts.iterdir())[:limit]:
        about = yaml.safe_load((folder / "concept.yaml").read_text())
        pictures = workspace.root / "pictures" / folder.name  # and nothing else: many a script takes every file for a picture
        shutil.copytree(folder, pictures, ignore=shutil.ignore_patterns("concept.yaml"), dirs_exist_ok=True)
        values = {
            "model": model, "images": pictures, "token": f"<{folder.name}>", "initializer": about["initializer"],
            "steps": args.steps, "batch": args.batch, "output": workspace.root / "others" / folder.name,
        }  # fmt: skip
        made.append(run(shlex.split(command.format_map({key: shlex.quote(str(value)) for key, value in values.items()}))))
    return _row(name, len(made), made, float(args.steps))


def ours(name: str, workspace: Workspace, sets: list[str], concepts: int, names: list[str]) -> Row:
    for folder in ("embeddings", "checkpoints"):
        shutil.rmtree(workspace.artifacts / folder, ignore_errors=True)
    process: Process = run([sys.executable, "-m", "benchmarks.ours", str(workspace.root), ",".join(names), *sets])
    return _row(name, concepts, [process], process.said["mean_steps"])


def _row(name: str, concepts: int, processes: list[Process], steps: float) -> Row:
    def mean(key: str) -> float | None:
        said = [process.said[key] for process in processes if key in process.said]
        return sum(said) / len(said) if said else None

    seconds = sum(process.seconds for process in processes)
    return {
        "trainer": name,
        "concepts": concepts,
        "mean steps": steps,
        "seconds": seconds,
        "CPU seconds": sum(process.cpu_seconds for process in processes),
        "concepts an hour": 3600 * concepts / seconds,
        "samples a second": mean("samples_a_second"),
        "samples a CPU second": mean("samples_a_cpu_second"),
        "peak MB": max(process.peak_mb for process in processes),
    }


if __name__ == "__main__":
    main()
