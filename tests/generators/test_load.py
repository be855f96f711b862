from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from huggingface_hub import constants
from safetensors.torch import load_file

from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder, write_single_file
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.load import load_generator
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.generators.source import find_source
from ti_pipeline.words.word import ONLY


def test_folder_is_loaded_frozen_and_whole(generator: Generator, folder: Path) -> None:
    assert (generator.name, generator.resolution, generator.encoders[ONLY].frame.context, generator.diffusion.prediction) == (
        "tiny", 64, 77, "epsilon",
    )  # fmt: skip
    assert not any(p.requires_grad or p.is_meta for network in generator.networks.values() for p in network.parameters())
    assert not any(network.training for network in generator.networks.values())
    stored = load_file(folder / "text_encoder" / "model.safetensors")["text_model.embeddings.token_embedding.weight"]
    assert torch.equal(generator.encoders[ONLY].table, stored)


def test_digest_follows_the_files_that_are_loaded(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(folder, copy)
    first = find_source(generator_settings(folder)).digest
    (copy / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"a variant that is not loaded")
    (copy / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle beside safetensors")
    assert find_source(generator_settings(copy)).digest == first
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"beta_end": 0.02}))
    assert find_source(generator_settings(copy)).digest != first


def test_stable_diffusion_2_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "two", family=2)
    generator = load_tiny(folder)
    assert generator.diffusion.prediction == "v_prediction"
    assert generator.encoders[ONLY].tokenizer.pad_token_id == generator.encoders[ONLY].tokenizer.convert_tokens_to_ids("!") == 0
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    theirs, _ = pipe.encode_prompt("a red mug", "cpu", 1, False)
    assert torch.equal(encode(generator, ["a red mug"], {}).parts["hidden"], theirs)


def test_single_file_has_the_weights_of_its_folder(generator: Generator, folder: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "dream", weights=False)  # its configuration, beside it
    expected = weight_digests(generator)
    loaded = load_tiny(write_single_file(folder, tmp_path / "dream.safetensors"))
    assert loaded.name == "dream" and weight_digests(loaded) == expected
    assert weight_digests(load_tiny(write_single_file(folder, tmp_path / "dream.ckpt"))) == expected
    assert loaded.encoders[ONLY].tokenizer("a red mug").input_ids == generator.encoders[ONLY].tokenizer("a red mug").input_ids


def test_what_is_missing_is_named_with_its_remedy(folder: Path, tmp_path: Path) -> None:
    without = tmp_path / "without"
    shutil.copytree(folder, without)
    (without / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ParamsError, match=r"lacks unet/\*\.safetensors\. Download"):
        load_generator(generator_settings(without))
    for model in (tmp_path / "nothing", "./nothing.ckpt", "one-word"):
        with pytest.raises(ParamsError, match="there is nothing at"):
            load_generator(generator_settings(model))
    for model in ("owner/a--b", "two words/model", "datasets/owner/model"):
        with pytest.raises(ParamsError, match="there is nothing at"):
            load_generator(generator_settings(model))


def test_a_revision_of_what_lies_here_is_refused(folder: Path) -> None:
    for model in (folder, "miniature"):
        with pytest.raises(ParamsError, match="generator.revision is for a hub name, and .* lies here as it is. Set it to null."):
            load_generator(generator_settings(model, revision="main"))


def test_hub_name_without_network_says_what_to_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ParamsError, match=r"hf download owner/model --revision v1 .*--local-dir FOLDER"):
        load_generator(generator_settings("owner/model", revision="v1"))


def test_device_and_precision(folder: Path) -> None:
    half = load_tiny(folder, precision="bfloat16")
    assert {half.unet.dtype, half.encoders[ONLY].model.dtype, half.vae.dtype} == {torch.bfloat16, torch.float32}
    assert half.vae.dtype == torch.float32
    if not torch.cuda.is_available():
        with pytest.raises(ParamsError, match="there is no cuda:3"):
            load_tiny(folder, device="cuda:3")
