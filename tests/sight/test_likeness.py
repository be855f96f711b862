"""A DINO in the CLIP's place or beside it, and SigLIP models as rankers; all of the real classes, small and random."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model, PreTrainedTokenizerFast

from tests.candidates.small_workspace import PHOTOS
from ti_pipeline.errors import ParamsError
from ti_pipeline.params import Judge as JudgeSettings
from ti_pipeline.params import Ranker as Settings
from ti_pipeline.params import load
from ti_pipeline.sight.judge import load_judge
from ti_pipeline.sight.likeness import Sight, load_dino, not_another
from ti_pipeline.sight.ranker import Ranker, load_ranker

ROOT = Path(__file__).parents[2]
DINO = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 1, "image_size": 28, "patch_size": 14}
PREPARE = {
    "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 32}, "do_center_crop": True,
    "crop_size": {"height": 28, "width": 28}, "do_normalize": True, "do_rescale": True,
}  # fmt: skip
SIGLIP = {
    "embed_dim": 192,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 224, "timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False, "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 64, "vocab_size": 40, "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 192, "heads": 3, "layers": 1, "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
    },
}  # fmt: skip


def write_dino(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    Dinov2Model(Dinov2Config(**DINO)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPARE))
    return folder


def write_siglip(folder: Path) -> Path:
    """As open_clip writes a SigLIP to a hub: no start of a text, its own vocabulary, 64 tokens, pictures squashed and centred on grey."""
    folder.mkdir()
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**{name: value for name, value in SIGLIP.items() if name != "custom_text"})
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    prepare = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIGLIP, "preprocess_cfg": prepare}))
    words = ["<pad>", "</s>", "<unk>", *"a photo of duck candle red toy on the moon".split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return folder


def settings(model: Path | str = "miniature", **more: object) -> Settings:
    return Settings(**{"model": str(model), "pretrained": None, "likeness": "clip", "dino": None} | more)


def photographs() -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*/*.jpg"))]


def test_a_dino_is_loaded_where_likeness_asks_for_it(tmp_path: Path) -> None:
    folder = write_dino(tmp_path / "dino")
    assert load_dino(settings(dino=str(folder)), "cpu") is None
    with pytest.raises(ParamsError, match="ranker: likeness is both, which needs a DINO. Name one in ranker.dino"):
        load(ROOT / "params.yaml", ["ranker.likeness=both"])
    with pytest.raises(ParamsError, match="ranker.dino: there is no folder at .*nowhere"):
        load_dino(settings(likeness="dino", dino=str(tmp_path / "nowhere")), "cpu")
    dino = load_dino(settings(likeness="dino", dino=str(folder)), "cpu")
    assert dino is not None and dino.name == "dino"
    picture = photographs()[0]
    model = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        token = model(pixel_values=dino.prepare([picture])).last_hidden_state[0, 0].numpy()
    assert dino.images([picture])[0] == pytest.approx(token / np.linalg.norm(token), abs=1e-5)


def test_the_digest_is_the_clips_alone_unless_a_dino_counts(miniature: Ranker, tmp_path: Path) -> None:
    dino = load_dino(settings(likeness="dino", dino=str(write_dino(tmp_path / "dino"))), "cpu")
    other = load_dino(settings(likeness="dino", dino=str(write_dino(tmp_path / "other", seed=1))), "cpu")
    sights = [Sight(miniature), Sight(miniature, dino), Sight(miniature, dino, clip=False), Sight(miniature, other)]
    assert sights[0].digest == miniature.digest and len({sight.digest for sight in sights}) == 4
    assert [sight.name for sight in sights[:3]] == [
        "miniature", "miniature; likeness by miniature and dino", "miniature; likeness by dino",
    ]  # fmt: skip


def test_a_judge_that_ranks_is_told_by_its_weights(miniature: Ranker, tmp_path: Path) -> None:
    dino = load_dino(settings(likeness="dino", dino=str(write_dino(tmp_path / "dino"))), "cpu")
    copy, other = write_dino(tmp_path / "copy"), write_dino(tmp_path / "other", seed=1)
    (copy / "preprocessor_config.json").write_text(json.dumps(PREPARE | {"do_normalize": False}))
    same, another = (load_judge(JudgeSettings(model=str(folder)), "cpu") for folder in (copy, other))
    said = not_another(same, Sight(miniature, dino)) or ""
    assert said.startswith("The judge copy is the DINO that ranks too") and "Set judge.model to another" in said
    assert not_another(another, Sight(miniature, dino)) is None and not_another(same, Sight(miniature)) is None
    tensors = {name: tensor.half() for name, tensor in load_file(copy / "model.safetensors").items()}
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")  # another file of the same model
    assert not_another(load_judge(JudgeSettings(model=str(copy)), "cpu"), Sight(miniature, dino))


def test_a_judge_that_is_the_eyes_of_the_clip_is_told(miniature: Ranker, tmp_path: Path) -> None:
    """CLIPVisionModel is what transformers calls that part of a CLIP."""
    ranker = load_ranker(settings(write_siglip(tmp_path / "siglip")), "cpu")
    patches = dict(ranker.model.visual.named_parameters())["trunk.patch_embed.proj.weight"]
    vision = {"hidden_size": 192, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 16}
    model = CLIPVisionModel(CLIPVisionConfig(**vision))
    folder = tmp_path / "vision"
    for tells in (False, True):
        if tells:
            (weight,) = [weight for weight in model.parameters() if weight.ndim == 4]
            weight.data.copy_(patches)
        model.save_pretrained(folder)
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPARE))
        judge = load_judge(JudgeSettings(model=str(folder)), "cpu")
        said = not_another(judge, Sight(ranker)) or ""
        assert said.startswith("The judge vision is what the CLIP sees with that ranks too (ranker.model)") == tells
        assert not_another(judge, Sight(miniature)) is None


def test_a_siglip_ranks_as_open_clip_has_it(tmp_path: Path) -> None:
    folder = write_siglip(tmp_path / "siglip")
    ranker = load_ranker(settings(folder), "cpu")
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    picture, texts = photographs()[0], ["A photo of a duck!", "a red candle on the moon"]
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(texts)
    with torch.no_grad():
        expected = model.eval().encode_image(prepare(picture)[None], normalize=True)[0].numpy()
        said = model.encode_text(ids, normalize=True).numpy()
    assert ranker.images([picture])[0] == pytest.approx(expected, abs=1e-6)
    assert ranker.texts(texts) == pytest.approx(said, abs=1e-6)
    assert ranker.context == ids.shape[1] == 64 and ids[0, :5].tolist() == [3, 4, 5, 3, 6]  # canonical: small letters, no signs
    pixels = prepare(Image.new("RGB", (40, 90), (255, 255, 255)))
    assert pixels.shape == (3, 224, 224) and pixels.unique().tolist() == [1.0]
    assert ranker.table is not None and len(ranker.pieces) == 13
    rows = ranker.table[6:7].clone().requires_grad_()
    read = ranker.read(torch.where(ids == 6, len(ranker.table), ids), rows)
    torch.testing.assert_close(read[0].detach(), torch.from_numpy(said[0]))
    assert torch.autograd.grad(read.sum(), rows)[0].abs().max() > 0
