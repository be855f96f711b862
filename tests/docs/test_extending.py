"""The family of docs/extending.md, put where it says: found by a folder's index, learnt with, and drawn by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.test_contributing import ROOT, blocks

PAGE = ROOT / "docs" / "extending.md"
LEARN = """
import json, sys
from pathlib import Path

import ti_pipeline.generators.families as package

package.__path__.append(sys.argv[1])
import torch

from tests.generators.tiny_stable_diffusion import write_folder
from ti_pipeline import params
from ti_pipeline.files import read_table
from ti_pipeline.models import Models
from ti_pipeline.stages.generate import GENERATE
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.train import TRAIN
from ti_pipeline.stages.validate import VALIDATE
from ti_pipeline.words.files import read_word
from ti_pipeline.workspace import Workspace

torch.set_num_threads(1)
root = Path(sys.argv[2])
folder = write_folder(root / "tiny")
index = folder / "model_index.json"


def chain(*more):
    sets = ["generator.model=tiny", "generator.device=cpu", "generator.precision=float32", "train.steps=3", "train.batch_size=2"]
    sets += ["train.pack=1", "generate.candidates=1", "generate.steps=2", 'generate.briefs={object: ["a {token} on the moon"], style: []}']
    settings = params.load(root / "params.yaml", sets)
    workspace = Workspace.at(root, "concepts")
    for stage in (VALIDATE, TRAIN, GENERATE):
        outcomes = run_stage(stage, Run.over(workspace, settings))
        assert all(outcome.ok for outcome in outcomes), outcomes
    (row,) = read_table(workspace.candidate_table("fox"))
    return Models(settings, root).source, read_word(workspace.embedding("fox")), row["digest"]


source, plain, drawn = chain()
assert source.family.name == "Stable Diffusion 1.x or 2.x"
index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "SkippingPipeline"}))
(folder / "text_encoder" / "note.json").write_text("{}")  # other files, another digest: the stages are to run again
source, skipping, other = chain()
assert source.family.name == "Stable Diffusion 1.x that skips a layer"
assert other != drawn
for name, rows in skipping.rows.items():
    assert not torch.equal(rows, plain.rows[name])  # the layer before says other things, so another word is learnt
"""


def test_the_family_of_the_page_is_one_module_and_nothing_else(tmp_path: Path) -> None:
    module, *_ = (code for _, code in blocks(PAGE))
    families = tmp_path / "families"
    families.mkdir()
    (families / "clip_skip.py").write_text(module, encoding="utf-8")
    concept = tmp_path / "concepts" / "fox"
    concept.mkdir(parents=True)
    for file in (ROOT / "examples" / "concepts" / "fox").iterdir():
        (concept / file.name).write_bytes(file.read_bytes())
    (concept / "concept.yaml").write_text("initializer: fox\n", encoding="utf-8")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    script = tmp_path / "learn.py"
    script.write_text(LEARN, encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    command = [sys.executable, str(script), str(families), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
