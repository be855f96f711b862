from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, ViTConfig, ViTModel

from ti_pipeline.errors import ParamsError
from ti_pipeline.params import Judge as Settings
from ti_pipeline.sight.judge import find_judge, load_judge
from ti_pipeline.sight.picture_files import PREPARATION, picture_digest
from ti_pipeline.sight.picture_model import PictureModel

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32, "patch_size": 16}
PREPARE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}}


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the DINO files on the hub: a ViT whose pooler was never trained and is not in the file."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(**SMALL), add_pooling_layer=False).save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / PREPARATION).write_text(json.dumps(PREPARE))
    return tmp_path / "vit"


def test_the_miniature_judge_gives_unit_vectors(judge: PictureModel):
    pictures = [picture(0), picture(1, (30, 90)), picture(0)]
    embeddings = judge.images(pictures)
    assert embeddings.shape[0] == 3 and embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert embeddings[0] @ embeddings[2] == pytest.approx(1, abs=1e-5)
    assert embeddings[0] @ embeddings[1] < 0.999
    assert judge.digest == picture_digest(find_judge(Settings(model="miniature")))


def test_a_pooler_without_weights_is_not_used(folder: Path):
    first, second = (load_judge(Settings(model=str(folder)), "cpu").images([picture(0), picture(1)]) for _ in range(2))
    assert np.array_equal(first, second)
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    pixels = load_judge(Settings(model=str(folder)), "cpu").prepare([picture(0)])
    with torch.no_grad():
        token = model(pixel_values=pixels).last_hidden_state[0, 0].numpy()
    assert first[0] == pytest.approx(token / np.linalg.norm(token), abs=1e-5)


def test_the_digest_follows_what_is_loaded(folder: Path):
    before = picture_digest(folder)
    (folder / "README.md").write_text("not loaded")
    assert picture_digest(folder) == before
    (folder / PREPARATION).write_text(json.dumps(PREPARE | {"do_normalize": False}))
    assert picture_digest(folder) != before


def test_the_digest_follows_a_pickle_that_is_loaded_beside_other_weights(folder: Path):
    torch.save(ViTModel.from_pretrained(folder, add_pooling_layer=False).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    before = load_judge(Settings(model=str(folder)), "cpu")
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({name: weight + 1 for name, weight in weights.items()}, folder / "pytorch_model.bin")
    after = load_judge(Settings(model=str(folder)), "cpu")
    assert not np.allclose(before.images([picture(0)]), after.images([picture(0)])) and after.digest != before.digest


def test_what_a_folder_lacks_is_named(folder: Path, tmp_path: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ParamsError, match=r"vit lacks model.safetensors.*hf download"):
        load_judge(Settings(model=str(folder)), "cpu")
    with pytest.raises(ParamsError, match="there is no folder at .*nowhere"):
        load_judge(Settings(model=str(tmp_path / "nowhere")), "cpu")


def test_weights_that_do_not_fit_are_an_error(folder: Path):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ParamsError, match="do not fit its config.json"):
        load_judge(Settings(model=str(folder)), "cpu")


def test_a_broken_folder_and_a_model_of_texts_are_errors(folder: Path, tmp_path: Path):
    text = CLIPTextConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(text).save_pretrained(tmp_path / "text")
    shutil.copy(folder / PREPARATION, tmp_path / "text")
    with pytest.raises(ParamsError, match="reads input_ids, not only pictures"):
        load_judge(Settings(model=str(tmp_path / "text")), "cpu")
    (folder / "config.json").write_text("{")
    with pytest.raises(ParamsError, match="not valid JSON"):
        load_judge(Settings(model=str(folder)), "cpu")


def test_a_hub_name_without_a_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ParamsError, match="hf download nobody/nothing-of-this-name --local-dir FOLDER.*set judge.model"):
        load_judge(Settings(model="nobody/nothing-of-this-name"), "cpu")
