"""Each kind of file and folder that people take for a model: what it is, and what to do, is said before it is loaded."""

from __future__ import annotations

import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.generators.tiny_flow import write_flux
from tests.generators.tiny_language import write_sana
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder, write_single_file
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.load import load_generator
from ti_pipeline.generators.source import find_source

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
FIRST, LABELS = f"{UNET}input_blocks.0.0.weight", f"{UNET}label_emb.0.0.weight"
WHOLE = {FIRST: (8, 4, 3, 3), f"{VAE}decoder.conv_in.weight": (8, 4, 3, 3), f"{TEXT}transformer.text_model.final_layer_norm.bias": (8,)}
OF_XL = {FIRST: (8, 4, 3, 3), LABELS: (8, 8), f"{VAE}decoder.conv_in.weight": (8, 4, 3, 3)}
OF_XL |= {"conditioner.embedders.0.transformer.weight": (8, 8)}
OF_FLUX = {"double_blocks.0.img_attn.qkv.weight": (8, 8), "single_blocks.0.linear1.weight": (8, 8), "img_in.weight": (8, 64)}
OF_FLUX |= {"double_blocks.0.img_attn.norm.key_norm.scale": (8,), "txt_in.weight": (8, 8), "vector_in.in_layer.weight": (8, 8)}
OF_SD3 = {"joint_blocks.0.x_block.attn.qkv.weight": (8, 8), "x_embedder.proj.weight": (8, 16, 2, 2), "pos_embed": (1, 4, 8)}
OF_SD3 |= {"context_embedder.weight": (8, 8), "y_embedder.mlp.0.weight": (8, 8)}
OF_SANA = {"attention_y_norm.weight": (8,), "x_embedder.proj.weight": (2240, 32, 1, 1), "y_embedder.y_proj.fc1.weight": (8, 8)}
OF_Z_IMAGE = {"layers.0.adaLN_modulation.0.weight": (8, 8), "cap_embedder.0.weight": (8,), "x_embedder.weight": (16, 64)}
OF_Z_IMAGE |= {"layers.0.attention.q_norm.weight": (8,)}
OF_QWEN = {"transformer_blocks.0.img_mod.1.weight": (8, 8), "txt_norm.weight": (8,), "txt_in.weight": (8, 8), "img_in.weight": (8, 64)}
OF_QWEN |= {"transformer_blocks.0.attn.norm_q.weight": (8,), "transformer_blocks.0.attn.add_k_proj.weight": (8, 8)}
FILES = {
    "a LoRA": {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 8)},
    "a LoRA.": {"unet.down_blocks.0.attentions.0.proj_in.lora_A.weight": (4, 8)},
    "a LoRA..": {"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": (4, 8)},
    "a LoRA...": {"double_blocks.0.processor.proj_lora1.down.weight": (4, 8)},
    "a ControlNet": {"control_model.zero_convs.0.0.weight": (8, 8, 1, 1), **WHOLE},
    "a ControlNet.": {"controlnet_cond_embedding.conv_in.weight": (8, 3, 3, 3), "conv_in.weight": (8, 4, 3, 3)},
    "a ControlNet..": {"controlnet_blocks.0.weight": (8, 8), **OF_FLUX},
    "a ControlNet...": {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_k.conditioning1.0.weight": (8, 8, 1, 1)},
    "a T2I-Adapter": {"body.0.block1.weight": (8, 8, 3, 3), "conv_in.weight": (8, 8, 3, 3)},
    "a FLUX.1 Redux": {"redux_up.weight": (8, 8), "redux_up.bias": (8,), "redux_down.weight": (8, 8), "redux_down.bias": (8,)},
    "an IP-Adapter.": {"double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (8, 8)},
    "an IP-Adapter": {"image_proj.proj.weight": (8, 8), "ip_adapter.1.to_k_ip.weight": (8, 8)},
    "a motion module, which makes videos": {"down_blocks.0.motion_modules.0.temporal_transformer.norm.bias": (8,)},
    "a Stable Diffusion XL refiner": OF_XL | {"conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (8,)},
    "a Stable Diffusion XL refiner.": OF_XL | {LABELS: (8, 2560)},
    "a Stable Video Diffusion, a video model": WHOLE | {f"{UNET}input_blocks.1.0.time_stack.emb_layers.1.weight": (8, 8)},
    "an LTX-Video, a video model": {"model.diffusion_model.patchify_proj.weight": (8, 8)},
    "a HunyuanVideo, a video model": {"txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": (8,)},
    "a Mochi, a video model": {"blocks.0.attn.qkv_x.weight": (8, 8)},
    "a Wan, a video model": {"head.modulation": (1, 2, 8), "patch_embedding.weight": (8, 16, 1, 2, 2)},
    "a Wan, a video model.": {"condition_embedder.text_embedder.linear_1.weight": (8, 8), "blocks.0.attn1.to_q.weight": (8, 8)},
    "a HunyuanDiT": {"text_embedding_padding": (8, 8), "blocks.0.attn1.Wqkv.weight": (8, 8)},
    "a Cosmos.": {f"{UNET}blocks.0.adaln_modulation_cross_attn.1.weight": (8, 8), f"{UNET}x_embedder.proj.1.weight": (8, 8)},
    "a model in bitsandbytes' 4 bits": OF_FLUX
    | {"img_in.weight": (256, 1), "img_in.weight.quant_state.bitsandbytes__nf4": (8,), "img_in.weight.absmax": (8,)},
    "a model in NVIDIA's 4 bits (nvfp4)": OF_Z_IMAGE | {"layers.0.attention.qkv.weight_scale_2": ()},
    "a model in Nunchaku's 4 bits": {"transformer_blocks.0.qkv_proj.wscales": (8, 8), "transformer_blocks.0.qkv_proj.qweight": (8, 8)},
    "a Playground 2.5": OF_XL | {"edm_mean": (1, 4, 1, 1), "edm_std": (1, 4, 1, 1)},
    "a CosXL": OF_XL | {"edm_vpred.sigma_max": ()},
    "a Stable unCLIP": WHOLE | {LABELS: (8, 8), "noise_augmentor.data_mean": (1, 8)},
    "an upscaler": {"model.0.weight": (8, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (8, 8, 3, 3)},
    "an upscaler.": {"conv_first.weight": (8, 3, 3, 3), "body.0.rdb1.conv1.weight": (8, 8, 3, 3)},
    "an upscaler..": WHOLE | {FIRST: (8, 7, 3, 3), "low_scale_model.betas": (8,)},
    "a model that looks at pictures": {"vision_model.embeddings.patch_embedding.weight": (8, 3, 2, 2)},
    "a text encoder..": {"token_embd.weight": (8, 8), "enc.blk.0.attn_k.weight": (8, 8)},
    "a FLUX.1 without vector_in.in_layer.weight": {name: shape for name, shape in OF_FLUX.items() if not name.startswith("vector_in")},
    "a FLUX.1 without img_in.weight": {name: shape for name, shape in OF_FLUX.items() if not name.startswith("img_in")},
    "a Stable Diffusion 3 without pos_embed": {name: shape for name, shape in OF_SD3.items() if name != "pos_embed"},
    "no model that this loads: nothing among its 2 tensors": {"0.weight": (8, 8), "0.bias": (8,)},
    "a Cosmos": {"net.x_embedder.proj.1.weight": (8, 8)},
    "a Chroma": OF_FLUX | {"distilled_guidance_layer.in_proj.bias": (8,)},
    "a FLUX.2": OF_FLUX | {"single_stream_modulation.lin.weight": (8, 8)},
    "a HiDream": {"double_stream_blocks.0.block.adaLN_modulation.1.bias": (8,)},
    "an AuraFlow": {"double_layers.0.attn.w2q.weight": (8, 8)},
    "a Stable Cascade": {"clip_txt_mapper.weight": (8, 8)},
    "a PixArt": {"blocks.0.cross_attn.q_linear.weight": (8, 8)},
    "a Lumina": {"cap_embedder.0.weight": (8,), "layers.0.adaLN_modulation.1.weight": (8, 8)},
    "a transformer by diffusers' names": {"single_transformer_blocks.0.attn.to_q.weight": (8, 8)},
    "a FLUX.1 without text_encoder and text_encoder_2 and tokenizer_2 and vae": OF_FLUX,
    "a Stable Diffusion 3 without text_encoder and text_encoder_2 and vae": OF_SD3,
    "a Stable Diffusion XL without text_encoder_2": OF_XL,
    "a transformer by diffusers' names.": {"all_x_embedder.2-1.weight": (8, 64), "layers.0.adaLN_modulation.0.weight": (8, 8)},
    "a transformer by diffusers' names..": {"caption_norm.weight": (8,), "patch_embed.proj.weight": (8, 32, 1, 1)},
    "a SANA without text_encoder and tokenizer and vae": OF_SANA | {"blocks.0.cross_attn.q_linear.weight": (8, 8)},
    "a SANA of another size": OF_SANA | {"x_embedder.proj.weight": (8, 32, 1, 1)},
    "a SANA-Sprint": OF_SANA | {"cfg_embedder.mlp.0.weight": (8, 8)},
    "a SANA 1.5, of which diffusers reads no single file": OF_SANA | {"blocks.0.attn.q_norm.weight": (8,)},
    "a Z-Image without text_encoder and tokenizer and vae": OF_Z_IMAGE,
    "a Z-Image Omni": OF_Z_IMAGE | {"siglip_embedder.0.weight": (8,)},
    "a Qwen-Image without text_encoder and tokenizer and vae": OF_QWEN,
    "a Qwen-Image that works on a picture": OF_QWEN | {"__index_timestep_zero__": (1,)},
    "a Qwen-Image that works on a picture.": OF_QWEN | {"time_text_embed.addition_t_embedding.weight": (2, 8)},
    "a Qwen-Image 2.1": {"txt_in.text_norm.weight": (8,)},
    "a latent diffusion without tokenizer": WHOLE | {f"{TEXT}transformer.token_emb.weight": (8, 8)},
    "an inpainting model (FLUX.1 Fill)": OF_FLUX | {"img_in.weight": (8, 384)},
    "a model that draws from more than text.": OF_FLUX | {"img_in.weight": (8, 128)},
    "a U-Net alone.": {"add_embedding.linear_1.weight": (8, 8), "conv_in.weight": (8, 4, 3, 3)},
    "a learnt word": {"emb_params": (2, 768)},
    "a learnt word.": {"<cat-toy>": (1, 768)},
    "a learnt word..": {"clip_l": (2, 768), "t5": (2, 4096)},
    "an inpainting model": WHOLE | {FIRST: (8, 9, 3, 3)},
    "an inpainting model.": OF_XL | {FIRST: (8, 9, 3, 3)},
    "a model that draws from more than text": WHOLE | {FIRST: (8, 8, 3, 3)},
    "a VAE": {"decoder.conv_in.weight": (8, 4, 3, 3), "encoder.conv_in.weight": (8, 3, 3, 3)},
    "a VAE of Wan or Qwen-Image": {"decoder.middle.0.residual.0.gamma": (8, 1, 1, 1)},
    "a text encoder": {"text_model.embeddings.token_embedding.weight": (8, 8), "text_model.final_layer_norm.bias": (8,)},
    "a text encoder.": {"shared.weight": (8, 8), "encoder.block.0.layer.0.SelfAttention.q.weight": (8, 8)},
    "a U-Net alone": {"time_embedding.linear_1.weight": (8, 8), "conv_in.weight": (8, 4, 3, 3)},
    "a Stable Diffusion 1.x or 2.x without vae": {name: shape for name, shape in WHOLE.items() if not name.startswith(VAE)},
    "no model that this loads: nothing among its 5 tensors (layer.0, layer.1 …)": {f"layer.{i}": (4, 4) for i in range(5)},
    "no model that this loads: nothing among its 4 tensors": WHOLE | {LABELS: (8, 8)},
    "a file without a single tensor": {},
}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("what", FILES)
def test_a_file_is_told_by_the_names_in_it(tmp_path: Path, what: str, suffix: str) -> None:
    path, tensors = tmp_path / f"thing{suffix}", {name: torch.zeros(shape) for name, shape in FILES[what].items()}
    if suffix == ".ckpt":
        torch.save({"state_dict": tensors}, path)
    else:
        save_file(tensors, path)
    with pytest.raises(ParamsError) as error:
        load_generator(generator_settings(path))
    said = str(error.value)
    assert f" is {what.rstrip('.')}" in said and f"thing{suffix}" in said and said.count(". ") >= 1


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"params_ema": {"conv_first.weight": (8, 3, 3, 3), "body.0.rdb1.conv1.weight": (8, 8, 3, 3)}}, "an upscaler"),
        ({"string_to_token": {"*": 265}, "string_to_param": {"*": (2, 768)}, "name": "mug", "step": 3}, "a learnt word"),
        ({"<mug>": (768,)}, "a learnt word"),
        ({"model": {FIRST: (8, 9, 3, 3)}, "optimizer": {"state": {}}}, "an inpainting model"),
        ({"time_embedding.linear_1.weight": (8, 8), "conv_in.weight": (8, 4, 3, 3)}, "a U-Net alone, by diffusers' names"),
        ({"image_proj": {"proj.weight": (8, 8)}, "ip_adapter": {"1.to_k_ip.weight": (8, 8)}}, "an IP-Adapter"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_is_told_by_what_is_in_it(tmp_path: Path, content: dict, what: str, suffix: str) -> None:
    def made(value: object) -> object:
        if isinstance(value, dict):
            return {name: made(each) for name, each in value.items()}
        return torch.zeros(value) if isinstance(value, tuple) else value

    path = tmp_path / f"thing{suffix}"
    torch.save(made(content), path)
    with pytest.raises(ParamsError, match=f"generator.model: .*thing{suffix} is {what}"):
        find_source(generator_settings(path)).family  # noqa: B018


def test_one_piece_of_a_model(folder: Path, tmp_path: Path) -> None:
    piece = tmp_path / "diffusion_pytorch_model-00002-of-00003.safetensors"
    save_file({"conv_in.weight": torch.zeros(8, 4, 3, 3)}, piece)
    with pytest.raises(ParamsError, match="is piece 2 of 3 of a model's weights. Give the folder"):
        load_generator(generator_settings(piece))
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    whole = broken / "unet" / "diffusion_pytorch_model.safetensors"
    index = {"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.safetensors", "x": piece.name}}
    (broken / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    whole.rename(whole.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    with pytest.raises(ParamsError, match="lacks unet/diffusion_pytorch_model-00002-of-00003.safetensors. Download"):
        find_source(generator_settings(broken))
    shutil.copy(piece, broken / "unet")
    (broken / "unet" / piece.name).write_bytes(piece.read_bytes()[:-9])
    with pytest.raises(ParamsError, match="00003.safetensors ends too early"):
        find_source(generator_settings(broken))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b"", "is empty"),
        (b"no weights at all", "no safetensors file"),
    ],
)
def test_what_lies_in_the_place_of_weights(folder: Path, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "dream.safetensors"
    path.write_bytes(content)
    with pytest.raises(ParamsError, match=words):
        load_generator(generator_settings(path))
    inside = Path(shutil.copytree(folder, tmp_path / "tiny"))
    (inside / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    with pytest.raises(ParamsError, match=words) as error:
        find_source(generator_settings(inside))
    assert "vae/diffusion_pytorch_model.safetensors" in str(error.value)


def test_half_a_download(folder: Path, tmp_path: Path) -> None:
    for suffix, words in ((".safetensors", "ends too early: .* of .* bytes"), (".ckpt", "ends too early")):
        path = write_single_file(folder, tmp_path / f"dream{suffix}")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ParamsError, match=words):
            load_generator(generator_settings(path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ParamsError, match="ends too early"):
        load_generator(generator_settings(path))


def change(path: Path, **entries: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_folder_of_something_else(folder: Path, tmp_path: Path) -> None:
    def refused(name: str, words: str) -> None:
        with pytest.raises(ParamsError, match=words):
            find_source(generator_settings(tmp_path / name))

    for name, entries, words in (
        ("inpainting", {"in_channels": 9}, "an inpainting model"),
        ("pix2pix", {"in_channels": 8}, "draws from more than text"),
        ("xl", {"addition_embed_type": "text_time"}, "its U-Net is another family's"),
        ("mixed", {"cross_attention_dim": 48}, "texts of width 48, and its text encoder's are 32"),
    ):
        shutil.copytree(folder, tmp_path / name)
        change(tmp_path / name / "unet" / "config.json", **entries)
        refused(name, words)
    for name, kind, words in (
        ("pixart", "PixArtAlphaPipeline", "for the PixArtAlphaPipeline"),
        ("if", "IFPipeline", "for the IFPipeline"),
        ("wan", "WanPipeline", "a video model .WanPipeline"),
        ("fill", "FluxFillPipeline", "an inpainting model .FluxFillPipeline"),
        ("refiner", "StableDiffusionXLImg2ImgPipeline", "works on a picture that is there"),
        ("controlled", "StableDiffusionControlNetPipeline", "a model with a ControlNet .*Give the model without it"),
        ("unknown", "SomethingElse", "no model that this loads .SomethingElse"),
    ):
        shutil.copytree(folder, tmp_path / name)
        change(tmp_path / name / "model_index.json", _class_name=kind)
        refused(name, words)
    for name, file, content, words in (
        ("lora", "pytorch_lora_weights.safetensors", "", "a LoRA"),
        ("word", "learned_embeds.bin", "", "a learnt word"),
        ("vae", "config.json", '{"_class_name": "AutoencoderKL"}', "a VAE"),
        ("control", "config.json", '{"_class_name": "ControlNetModel"}', "a ControlNet"),
        ("transformer", "config.json", '{"_class_name": "FluxTransformer2DModel"}', "a transformer alone .FluxTransformer2DModel"),
        ("one", "dream.safetensors", "", "has dream.safetensors in it. Set generator.model to that file"),
        ("page", "config.json", "<html>", "not valid JSON"),
        ("t5", "config.json", '{"model_type": "t5", "architectures": ["T5EncoderModel"]}', "a text encoder, or another .* .t5.*one part"),
        ("pieces", "model-00001-of-00003.safetensors", "", "has a piece of a model in it .*Download a whole model in diffusers' layout"),
        ("nothing", "readme.txt", "", "no model: there is neither a model_index.json"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(content)
        refused(name, words)


def test_a_folder_in_half_precision_only(generator: Generator, folder: Path, tmp_path: Path) -> None:
    half = Path(shutil.copytree(folder, tmp_path / "half"))
    for path in list(half.glob("*/*.safetensors")):
        tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(path).items()}
        save_file(tensors, path.with_suffix(".fp16.safetensors"), {"format": "pt"})
        path.unlink()
    loaded = load_tiny(half)
    assert loaded.digest != generator.digest
    for part, network in loaded.networks.items():
        theirs = generator.networks[part].state_dict()
        assert all(torch.equal(weight, theirs[name].half().to(weight.dtype)) for name, weight in network.state_dict().items())
    (half / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"")
    with pytest.raises(ParamsError, match="is empty"):
        find_source(generator_settings(half))


@pytest.mark.parametrize("name", ["text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.1.mlp.fc1.weight"])
def test_a_text_encoder_without_one_of_its_weights(folder: Path, tmp_path: Path, name: str) -> None:
    partial = Path(shutil.copytree(folder, tmp_path / "partial"))
    path = partial / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ParamsError, match=name.removeprefix("text_model.")):
        load_tiny(partial)
    write_folder(tmp_path / "dream", weights=False)
    with pytest.raises(ParamsError, match=name.removeprefix("text_model.")):
        load_tiny(write_single_file(partial, tmp_path / "dream.safetensors"))


@pytest.mark.parametrize(("write", "tokenizer"), [(write_folder, "tokenizer"), (write_flux, "tokenizer_2"), (write_sana, "tokenizer")])
def test_a_tokenizer_without_its_vocabulary(write: Callable[[Path], Path], tokenizer: str, tmp_path: Path) -> None:
    """Of which transformers makes one that knows special tokens alone."""
    model = write(tmp_path / "model")
    (model / tokenizer / "tokenizer.json").unlink()
    source = find_source(generator_settings(model))
    for load in (lambda: load_tiny(model), lambda: source.family.readers(source)):
        with pytest.raises(ParamsError, match=f"model/{tokenizer} has no vocabulary in it. Download that folder again, with its tokenizer"):
            load()


def test_a_checkpoint_as_its_trainer_wrote_it(generator: Generator, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Like the published `sd-v1-4.ckpt`: objects of a package that is not here stand beside the weights."""
    write_folder(tmp_path / "dream", weights=False)
    weights = torch.load(write_single_file(folder, tmp_path / "dream.ckpt"), weights_only=True)["state_dict"]
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    callback = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = callback
    one = callback()
    one.monitor = "val/loss"
    content = {"state_dict": weights, "epoch": 1, "callbacks": {callback: {"best": one, "score": torch.zeros(1).numpy()[0]}}}
    with monkeypatch.context() as patched:
        for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
            patched.setitem(sys.modules, name, types.ModuleType(name))
        patched.setitem(sys.modules, module.__name__, module)
        torch.save(content, tmp_path / "dream.ckpt")
    assert module.__name__ not in sys.modules
    assert weight_digests(load_tiny(tmp_path / "dream.ckpt")) == weight_digests(generator)
