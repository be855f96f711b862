"""The setup of docs/contributing/add-a-setup.md, put where it says: found, set by params, and learnt from to a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.docs.test_contributing import ROOT, blocks

PAGE = ROOT / "docs" / "contributing" / "add-a-setup.md"
LEARN = """
import sys
from pathlib import Path

import ti_pipeline.inversion.setups as package

package.__path__.append(sys.argv[1])
import torch
import yaml

from ti_pipeline import params, stages
from ti_pipeline.inversion.initializer import initial_rows
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.models import Models
from ti_pipeline.words.files import read_word
from ti_pipeline.workspace import Workspace

torch.set_num_threads(1)
root = Path(sys.argv[2])
tree = yaml.safe_load((root / "params.yaml").read_text())
tree["train"]["setups"]["measured"] = {"scale": 1.0}
(root / "params.yaml").write_text(yaml.safe_dump(tree))
sets = ["train.steps=4", "train.batch_size=2", "generator.device=cpu", "generator.precision=float32", "train.pack=2"]


def learn(*more):
    settings = params.load(root / "params.yaml", [*sets, *more])
    workspace = Workspace.at(root, "concepts")
    stages.validate(workspace, settings)
    outcomes = stages.train(workspace, settings)
    assert all(outcome.ok for outcome in outcomes), outcomes
    words = {each.concept: read_word(workspace.embedding(each.concept)) for each in outcomes}
    return settings, words, {outcome.state for outcome in outcomes}


(root / "concepts" / "frog" / "concept.yaml").write_text("initializer: green turtle\\nvectors: 2\\n")
settings, words, _ = learn("train.setup=measured")
generator = Models(settings, root).generator
for slug, word in words.items():
    start = initial_rows(generator, word.class_words, len(word), Streams(0, slug))
    for encoder, rows in word.rows.items():
        torch.testing.assert_close(rows.norm(dim=-1), start[encoder].norm(dim=-1))
        assert (torch.nn.functional.cosine_similarity(rows, start[encoder], dim=-1) < 0.999).all()
assert len(words["frog"]) == 2 and len(words["fox"]) == 1
assert learn("train.setup=measured", "train.setups.regularised.weight=9")[2] == {"up-to-date"}
_, longer, state = learn("train.setup=measured", "train.setups.measured.scale=2")
assert state == {"done"}
for slug, word in longer.items():
    for encoder, rows in word.rows.items():
        torch.testing.assert_close(rows.norm(dim=-1), 2 * words[slug].rows[encoder].norm(dim=-1))
"""


def test_the_setup_of_the_page_is_one_module_and_nothing_else(tmp_path: Path) -> None:
    (module,) = (code for _, code in blocks(PAGE))
    setups = tmp_path / "setups"
    setups.mkdir()
    (setups / "measured.py").write_text(module, encoding="utf-8")
    for name in ("fox", "frog"):
        folder = tmp_path / "concepts" / name
        folder.mkdir(parents=True)
        for file in (ROOT / "examples" / "concepts" / name).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    script = tmp_path / "learn.py"
    script.write_text(LEARN, encoding="utf-8")
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    command = [sys.executable, str(script), str(setups), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
