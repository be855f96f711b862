"""All stages on small models of the families whose text encoder is a language model, from pictures to pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.stages.quick import ROOT, quick, run
from ti_pipeline.workspace import Workspace

STAGES = ("validate", "train", "generate", "rank", "evaluate", "gallery")


@pytest.mark.parametrize("write", [write_sana, write_z_image, write_qwen_image])
def test_a_concept_goes_from_pictures_to_a_page(write: Callable[[Path], Path], tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "concepts" / "frog", tmp_path / "concepts" / "frog")
    workspace = Workspace.at(tmp_path, "concepts")
    params = quick(f"generator.model={write(tmp_path / 'model')}", "generator.device=cpu", "generator.precision=float32")
    for stage, outcomes in run(workspace, params, *STAGES).items():
        assert outcomes["frog"].state == "done", (stage, outcomes["frog"].reason)
    with safe_open(workspace.embedding("frog"), framework="pt") as file:
        about = file.metadata()
        assert file.get_slice(about["token"]).get_shape() == [1, 32] and json.loads(about["tables"]) == {"text": "text_encoder"}
    page = (tmp_path / "artifacts" / "galleries" / "frog" / "index.html").read_text(encoding="utf-8")
    assert "pipe.text_encoder)" in page and "load_textual_inversion" not in page
    for stage, outcomes in run(workspace, params, *STAGES).items():
        assert outcomes["frog"].state == "up-to-date", (stage, outcomes["frog"].reason)
