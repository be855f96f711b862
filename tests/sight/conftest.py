from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tests.candidates.small_workspace import ROOT
from ti_pipeline.params import load
from ti_pipeline.sight.judge import Judge, load_judge
from ti_pipeline.sight.ranker import Ranker, load_ranker

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as open_clip writes it to a hub, small and random."""
    folder = tmp_path_factory.mktemp("rankers") / "small-clip"
    folder.mkdir()
    torch.manual_seed(0)
    weights = open_clip.CLIP(**MODEL).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors", {"format": "pt"})
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL, "preprocess_cfg": {"resize_mode": "squash"}}))
    return folder


@pytest.fixture(scope="session")
def miniature() -> Ranker:
    return load_ranker(load(ROOT / "params.yaml", ["ranker.model=miniature"]).ranker, "cpu")


@pytest.fixture(scope="session")
def judge() -> Judge:
    return load_judge(load(ROOT / "params.yaml", ["judge.model=miniature"]).judge, "cpu")
