from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ti_pipeline.files import digest_file
from ti_pipeline.model_files import digest_config, located, safetensors_shapes


def test_a_digest_follows_a_configuration_but_not_the_precision_that_it_asks_loaders_for(tmp_path: Path) -> None:
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2, 3, dtype=torch.float16)}, weights)

    def digest(**entries: object) -> str:
        config.write_text(json.dumps({"layers": 2, "dtype": "float16"} | entries))
        return digest_config(config, [weights])

    assert digest() == digest_file(config)
    assert digest(dtype="float32") == digest() != digest(layers=3)
    save_file({"a": torch.zeros(2, 3)}, weights)
    assert digest(dtype="float32") == digest_file(config)
    assert digest_config(config, []) == digest_file(config)


def test_shapes_are_read_from_the_header(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, tmp_path / "w.safetensors", {"format": "pt"})
    assert safetensors_shapes(tmp_path / "w.safetensors", "generator.model") == {"a": (2, 3), "b": (4,)}


def test_a_path_is_relative_to_the_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ws" / "models" / "dream").mkdir(parents=True)
    (tmp_path / "ws" / "miniature").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    root = Path("ws").resolve()
    assert located("models/dream", root) == located("~/ws/models/dream", root) == str(tmp_path / "ws" / "models" / "dream")
    for name in ("miniature", "ViT-B-32", "openai", "owner/model"):
        assert located(name, root) == name
    assert located("./nothing", root) == str(root / "nothing") and located("~/x", root) == str(tmp_path / "x")
