from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tests.candidates.small_workspace import ROOT
from ti_pipeline.params import load
from ti_pipeline.sight.judge import load_judge
from ti_pipeline.sight.picture_model import PictureModel
from ti_pipeline.sight.ranker import Ranker, load_ranker

MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def write_clip(folder: Path, table: torch.Tensor | None = None) -> Path:
    """A folder as open_clip writes it to a hub, small and random; `table` are the vectors of its vocabulary."""
    folder.mkdir()
    text = MODEL["text_cfg"] | ({} if table is None else {"width": table.shape[1]})
    torch.manual_seed(0)
    weights = open_clip.CLIP(**MODEL | {"text_cfg": text}).state_dict()
    if table is not None:
        weights["token_embedding.weight"] = table.detach().clone()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "open_clip_model.safetensors", {"format": "pt"})
    config = {"model_cfg": MODEL | {"text_cfg": text}, "preprocess_cfg": {"resize_mode": "squash"}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("rankers") / "small-clip")


@pytest.fixture(scope="session")
def miniature() -> Ranker:
    return load_ranker(load(ROOT / "params.yaml", ["ranker.model=miniature"]).ranker, "cpu")


@pytest.fixture(scope="session")
def judge() -> PictureModel:
    return load_judge(load(ROOT / "params.yaml", ["judge.model=miniature"]).judge, "cpu")
