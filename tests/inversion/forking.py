"""A process that has imported everything and forks one child a training, so that SIGKILL hits work and not imports.

Reads JSON lines {"root", "set", "kill"} and answers each with the child's exit status. `kill` is null, or when the child kills itself:
["step", n], when that step has been said to be done; ["checkpoint", n], when the n-th one is written and has not its name yet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path

FAMILIES = (
    "flux", "latent_diffusion_text", "qwen_image", "sana", "stable_diffusion_3", "stable_diffusion_xl", "z_image",
)  # fmt: skip


def import_all() -> None:
    import torch

    import ti_pipeline.inversion.train
    import ti_pipeline.stages.train  # noqa: F401
    from ti_pipeline.generators.single_file import part_class

    for family in FAMILIES:
        for part in import_module(f"ti_pipeline.generators.families.{family}").MODEL_INDEX.values():
            if isinstance(part, list) and part[1]:
                part_class(part[1])
    torch.set_num_threads(1)


def train(root: Path, sets: list[str], kill: tuple[str, int] | None) -> bool:
    """Learn the words of a workspace whose concepts are validated; whether all were."""
    from ti_pipeline import params
    from ti_pipeline.stages.run import run_stage
    from ti_pipeline.stages.stage import Run
    from ti_pipeline.stages.train import TRAIN
    from ti_pipeline.workspace import Workspace

    moment, number = kill or ("", 0)
    written = 0

    def before(event: str, arguments: tuple) -> None:
        nonlocal written
        if event == "os.rename" and Path(arguments[1]).name.startswith("pack-"):
            written += 1
            if written == number:
                os.kill(os.getpid(), signal.SIGKILL)

    def report(done: int, total: int, text: str) -> None:
        if moment == "step" and done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if moment == "checkpoint":
        sys.addaudithook(before)
    chosen = params.load(Path(__file__).parents[2] / "params.yaml", sets)
    return all(outcome.ok for outcome in run_stage(TRAIN, Run.over(Workspace.at(root, "concepts"), chosen, report=report)))


def main() -> None:
    import_all()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if not (child := os.fork()):
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            os._exit(0 if train(Path(order["root"]), order["set"], order["kill"]) else 1)
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)


if __name__ == "__main__":
    main()
