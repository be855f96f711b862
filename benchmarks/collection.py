"""Collections to measure on: the example concepts in other colours, or things that the miniature has never seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from benchmarks.report import ROOT
from ti_pipeline.params import Params, load
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.validate import VALIDATE
from ti_pipeline.workspace import Workspace

EXAMPLES = ROOT / "examples" / "concepts"


def settings(*overrides: str) -> Params:
    return load(ROOT / "params.yaml", ["concepts.folder=concepts", *overrides])


def recoloured(folder: Path, count: int) -> Workspace:
    """`count` validated concepts of four pictures: the examples, each further round of them with its hues turned."""
    examples = sorted(path for path in EXAMPLES.iterdir() if path.is_dir())
    for i in range(count):
        source, turn = examples[i % len(examples)], 37 * (i // len(examples))
        target = folder / "concepts" / f"{source.name}-{i:03}"
        target.mkdir(parents=True)
        shutil.copy(source / "concept.yaml", target)
        for file in sorted(source.glob("*.png")):
            hsv = np.array(Image.open(file).convert("HSV"))
            hsv[..., 0] += np.uint8(turn % 256)
            Image.fromarray(hsv, "HSV").convert("RGB").save(target / file.name)
    return _validated(folder)


def unseen(folder: Path, count: int) -> Workspace:
    """`count` validated concepts of four pictures of things from the miniature's held-out list.

    Needs the artwork: `pip install 'ti-pipeline[miniature]'` and npm, or a folder in MINIATURE_WORK that has it.
    """
    from miniature.examples import SHOWN
    from miniature.icons import rasterise
    from miniature.pictures import Artwork, things
    from miniature.store import work_folder

    art, made = Artwork(rasterise(work_folder())), 0
    for thing, initializer in things()["held_out"].items():
        if made == count or any(art[thing, style] is None for style, _ in SHOWN):
            continue
        target = folder / "concepts" / thing.replace(" ", "-")
        target.mkdir(parents=True)
        for style, background in SHOWN:
            Image.fromarray(art.picture(thing, style, background)).resize((256, 256), Image.Resampling.LANCZOS).save(
                target / f"{background}.png"
            )
        (target / "concept.yaml").write_text(yaml.safe_dump({"initializer": initializer, "kind": "object"}))
        made += 1
    return _validated(folder)


def _validated(folder: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    workspace = Workspace.at(folder, "concepts")
    lost = [outcome for outcome in run_stage(VALIDATE, Run.over(workspace, settings())) if not outcome.ok]
    if lost:
        raise RuntimeError(f"the collection to measure on is not valid: {lost}")
    return workspace
