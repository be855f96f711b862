from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from open_clip import factory
from PIL import Image

from tests.candidates.small_workspace import PHOTOS
from tests.sight.conftest import MODEL
from ti_pipeline.errors import ParamsError
from ti_pipeline.params import Ranker as Settings
from ti_pipeline.sight.ranker import BATCH, Ranker, load_ranker


def load(model: str | Path, pretrained: str | Path | None = None) -> Ranker:
    weights = None if pretrained is None else str(pretrained)
    return load_ranker(Settings(model=str(model), pretrained=weights, likeness="clip", dino=None), "cpu")


def photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*/*.jpg"))]


def test_embeddings_are_unit_vectors_and_always_the_same(folder: Path) -> None:
    ranker, pictures = load(folder), photographs()
    images, texts = ranker.images(pictures), ranker.texts(["a duck", "a candle", "a duck"])
    assert images.shape == (len(pictures), 16) and texts.shape == (3, 16) and images.dtype == texts.dtype == np.float32
    assert np.linalg.norm(images, axis=1) == pytest.approx(1, abs=1e-6) and np.linalg.norm(texts, axis=1) == pytest.approx(1, abs=1e-6)
    assert (texts[0] == texts[2]).all() and (texts[0] != texts[1]).any()
    assert (load(folder).images(pictures) == images).all()
    assert not any(p.requires_grad for p in ranker.model.parameters()) and not ranker.model.training


def test_more_than_one_batch(folder: Path) -> None:
    ranker, pictures = load(folder), photographs()
    many = [pictures[i % len(pictures)] for i in range(BATCH + 3)]
    assert ranker.images(many)[BATCH:] == pytest.approx(ranker.images(many[BATCH:]), abs=1e-6)


def test_embeddings_are_open_clips_own(folder: Path) -> None:
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    picture = photographs()[0]
    with torch.no_grad():
        expected = model.eval().encode_image(prepare(picture)[None], normalize=True)[0].numpy()
    assert load(folder).images([picture])[0] == pytest.approx(expected, abs=1e-6)


def test_digest_follows_weights_and_settings_but_not_the_place(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    assert load(copy).digest == load(folder).digest
    config = copy / "open_clip_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "preprocess_cfg": {"resize_mode": "shortest"}}))
    assert load(copy).digest != load(folder).digest


def test_the_miniature_ranks(miniature: Ranker) -> None:
    assert miniature.name == "miniature"
    assert miniature.images(photographs()).shape[1] == miniature.texts(["a duck"]).shape[1]


def test_open_clip_name_with_a_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, "small-clip": MODEL})
    weights = folder / "open_clip_model.safetensors"
    ranker = load("small-clip", weights)
    assert ranker.name == "small-clip/open_clip_model.safetensors"
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"nothing")
    with pytest.raises(ParamsError, match="ranker.model: small-clip/broken.pt does not load: "):
        load("small-clip", broken)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="ranker.model: ViT-B-23 is neither .* such as ViT-B-32"):
        load("ViT-B-23", "openai")
    with pytest.raises(ParamsError, match="ranker.pretrained: ViT-B-32 needs weights. Give a file with them, or one of openai, "):
        load("ViT-B-32")
    with pytest.raises(ParamsError, match="ranker.pretrained: laion9 is neither a file nor weights of ViT-B-32"):
        load("ViT-B-32", "laion9")
    with pytest.raises(ParamsError, match="lacks open_clip_config.json and open_clip_model.safetensors"):
        load(tmp_path)


def test_offline_it_says_what_to_download_and_where_to_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with caplog.at_level(logging.WARNING), pytest.raises(ParamsError) as error:
        load("ViT-B-32", "laion2b_s34b_b79k")
    assert "download them from https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K" in str(error.value)
    assert "set ranker.pretrained to its path" in str(error.value)
    assert not caplog.records
