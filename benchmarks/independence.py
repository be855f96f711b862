"""Does a concept's word depend on its company? `python -m benchmarks.independence [--quick]`.

Cosine between the vectors of a concept trained alone and in packs, in float32 and, where the processor has it, in bfloat16;
and, as a yardstick for bfloat16, between the two precisions.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.collection import recoloured, settings
from benchmarks.report import Row, keep, machine
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.words.files import read_word
from ti_pipeline.words.word import ONLY
from ti_pipeline.workspace import Workspace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--alone", type=int, default=3, help="concepts that are trained alone, to be compared")
    parser.add_argument("--packs", type=int, nargs="+", default=[2, 8, 24])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--quick", action="store_true", help="end within about a minute")
    args = parser.parse_args()
    if args.quick:
        args.steps, args.alone, args.packs = 6, 1, [2, 8]
    where, rows, alone = machine(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = recoloured(Path(folder), max(args.packs))
        slugs = sorted(path.name for path in workspace.concepts.iterdir())
        for precision in args.precisions:
            sets = (f"train.steps={args.steps}", f"generator.precision={precision}")
            alone[precision] = {slug: words(workspace, [slug], 1, sets)[slug] for slug in slugs[: args.alone]}
            for pack in args.packs:
                together = words(workspace, slugs[: max(pack, args.alone)], pack, sets)
                rows.append(compared(f"alone and in a pack of {pack}, {precision}", alone[precision], together))
        if len(args.precisions) > 1:
            first, second = args.precisions[:2]
            rows.append(compared(f"alone, {first} and {second}", alone[first], alone[second]))
    notes = ["Cosine of the whole vectors; the smallest of the concepts that were trained alone as well."]
    keep("independence-quick" if args.quick else "independence", vars(args), rows, notes, where)


def words(workspace: Workspace, slugs: list[str], pack: int, sets: tuple[str, ...]) -> dict[str, torch.Tensor]:
    shutil.rmtree(workspace.artifacts / "embeddings", ignore_errors=True)
    outcomes = run_stage(TRAIN, Run.over(workspace, settings(*sets, f"train.pack={pack}"), slugs))
    if lost := [outcome for outcome in outcomes if not outcome.ok]:
        raise RuntimeError(f"lost: {lost}")
    return {slug: read_word(workspace.embedding(slug)).rows[ONLY] for slug in slugs}


def compared(name: str, one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> Row:
    cosines = [F.cosine_similarity(one[slug].double().flatten(), other[slug].double().flatten(), dim=0).item() for slug in one]
    apart = [((one[slug] - other[slug]).norm() / one[slug].norm()).item() for slug in one]
    return {"compared": name, "concepts": len(one), "smallest cosine": f"{min(cosines):.8f}", "largest relative distance": max(apart)}


if __name__ == "__main__":
    main()
