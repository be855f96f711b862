"""What a file or folder of weights is, told by what its parts are called before any of them is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import read_json
from ti_pipeline.generators.checkpoint import WHOLE, tensor_shapes
from ti_pipeline.generators.family import Family, families
from ti_pipeline.generators.refusals import SETTING, part_config, refusal, whole
from ti_pipeline.model_files import Shapes

ADDITION = "It goes with a model and is none: give the model that it was made for, or that model with it merged into it."
PART = "It is one part of a model: give the whole one, or its denoiser with the other parts in generator.parts."
DRAWS = "Give a model that draws pictures from text. Supported: {families}."
_WORD = ("a learnt word", "It is what training makes: give the model.")
_FOLDERS = "Give the whole model as a folder in diffusers' layout. Supported: {families}."
_LAYOUT = "Download a whole model in diffusers' layout (`hf download OWNER/NAME --local-dir FOLDER`) and set it to FOLDER."
_BITS = "Give the same model in 16 or 8 bits, or as a .gguf file."
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
# A part of a tensor's name, what a file is that has such a tensor, and what to do. The first that fits is it.
_MARKS = (
    (("lora_", "lora.down", "lora.up", "_lora1.", "_lora2.", ".hada_w", ".lokr_w", ".oft_", ".dora_scale"), "a LoRA", ADDITION),
    (("string_to_param", "emb_params"), *_WORD),
    (
        ("control_model.", "controlnet_", "input_hint_block.", "control_layers.", "control_all_x_embedder.", "lllite_"),
        "a ControlNet",
        ADDITION,
    ),
    (("ip_adapter", "image_proj.", "to_k_ip."), "an IP-Adapter", ADDITION),
    (("adapter.body.", "body.0.block1."), "a T2I-Adapter", ADDITION),
    (("redux_up.",), "a FLUX.1 Redux, which lets a FLUX.1 see pictures", ADDITION),
    (("quant_state.bitsandbytes",), "a model in bitsandbytes' 4 bits, which diffusers does not read from a single file", _BITS),
    ((".weight_scale_2",), "a model in NVIDIA's 4 bits (nvfp4), which diffusers does not read from a single file", _BITS),
    ((".wscales", ".smooth_factor"), "a model in Nunchaku's 4 bits, which this does not load", _BITS),
    (("edm_mean",), "a Playground 2.5, whose noise is not Stable Diffusion XL's", DRAWS),
    (("edm_vpred.",), "a CosXL, whose noise is not Stable Diffusion XL's", DRAWS),
    (("noise_augmentor.",), "a Stable unCLIP, which draws from pictures", DRAWS),
    (("low_scale_model.", ".rdb1.", ".RDB1.", "conv_after_body.", "conv_first."), "an upscaler", DRAWS),
    (("motion_modules.",), "a motion module, which makes videos", ADDITION),
    (("conditioner.embedders.0.model.",), "a Stable Diffusion XL refiner, which works on a picture that is there", DRAWS),
    (("time_stack.", "time_mixer."), "a Stable Video Diffusion, a video model", DRAWS),
    (("patchify_proj.", "per_channel_statistics."), "an LTX-Video, a video model", DRAWS),
    (("individual_token_refiner.",), "a HunyuanVideo, a video model", DRAWS),
    (("blocks.0.attn.qkv_x.",), "a Mochi, a video model", DRAWS),
    (("head.modulation", "condition_embedder.text_embedder."), "a Wan, a video model", DRAWS),
    (("net.x_embedder.", ".adaln_modulation_cross_attn."), "a Cosmos, which this does not load", DRAWS),
    (("distilled_guidance_layer.",), "a Chroma, which this does not load", DRAWS),
    (("double_stream_modulation_img.", "single_stream_modulation."), "a FLUX.2, which this does not load", DRAWS),
    (("double_stream_blocks.",), "a HiDream, which this does not load", DRAWS),
    (("double_layers.",), "an AuraFlow, which this does not load", DRAWS),
    (("text_embedding_padding",), "a HunyuanDiT, which this does not load", DRAWS),
    (("txt_in.text_norm.",), "a Qwen-Image 2.1, which this does not load", DRAWS),
    (("clip_txt_mapper.", "channelwise."), "a Stable Cascade, which this does not load", DRAWS),
)
# Denoisers that are looked for after those that a family takes from a file.
_OTHERS = (
    (
        ("single_transformer_blocks.", "transformer_blocks.0.attn.add_k_proj.", "all_x_embedder.", "caption_norm."),
        "a transformer by diffusers' names",
        _FOLDERS,
    ),
    (("cap_embedder.",), "a Lumina, which this does not load", DRAWS),
    (("cross_attn.q_linear.",), "a PixArt, which this does not load", DRAWS),
)
_ALONE = (  # a part of its own, by names that nothing but it has
    (
        (
            "down_blocks.0.resnets.0.time_emb_proj.weight", "time_embedding.linear_1.weight", "time_embed.0.weight",
            "add_embedding.linear_1.weight",
        ),
        "a U-Net alone, by diffusers' names",
    ),
    (("decoder.middle.0.residual.0.gamma", "decoder.mid_block.resnets.0.norm1.gamma"), "a VAE of Wan or Qwen-Image"),
    (
        ("decoder.conv_in.weight", "encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight", "encoder.project_in.conv.weight"),
        "a VAE",
    ),
    (
        ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight", "visual.trunk.patch_embed.proj.weight"),
        "a model that looks at pictures",
    ),
    (
        (
            "text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight", "token_embedding.weight",
            "shared.weight", "model.embed_tokens.weight", "token_embd.weight",
        ),
        "a text encoder",
    ),
)  # fmt: skip
_CLASSES = (  # parts of a `_class_name` of model_index.json or config.json
    ("ControlNetModel", "a ControlNet ({})", ADDITION),
    ("ControlNet", "a model with a ControlNet ({})", "Give the model without it."),
    ("Inpaint", "an inpainting model ({})", DRAWS),
    ("Fill", "an inpainting model ({})", DRAWS),
    ("Img2Img", "a model that works on a picture that is there ({})", DRAWS),
    ("Upscale", "an upscaler ({})", DRAWS),
    *((name, "a video model ({})", DRAWS) for name in ("Video", "Animat", "Wan", "LTX", "Mochi", "Latte", "Allegro", "EasyAnimate")),
    ("Pipeline", "a model for the {}", DRAWS),
    ("Autoencoder", "a VAE ({})", PART),
    ("UNet", "a U-Net alone ({})", PART),
    ("Transformer", "a transformer alone ({})", PART),
    ("", "no model that this loads ({})", DRAWS),
)
_FOLDER_FILES = (
    (("adapter_config.json", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"), "a LoRA", ADDITION),
    (("learned_embeds.safetensors", "learned_embeds.bin"), *_WORD),
)


def family_of_folder(folder: Path) -> Family:
    """The family that a folder in diffusers' layout is of: that which its index names, else the one whose parts are there."""
    index = folder / "model_index.json"
    about = read_json(index, SETTING) if index.is_file() else {}
    named = str(about.get("_class_name")) if isinstance(about, dict) else ""
    if found := next((family for family in families() if named in family.pipelines), None):
        return found
    if found := next((family for family in families() if family.denoiser and family.denoiser == _denoiser(folder)), None):
        return found

    there = {family: sum((folder / part).is_dir() for part in family.parts) for family in families()}
    if not any(there.values()):
        raise refusal(folder, "no model: there is neither a model_index.json in it nor the folders of one", _LAYOUT)
    return max(families(), key=lambda family: 2 * there[family] - len(family.parts))


def family_of_file(path: Path) -> Family:
    """The family of a single file. Raises ParamsError that says what the file is unless it holds a denoiser that draws from text."""
    if shard := _SHARD.search(path.stem):
        what = f"piece {int(shard[1])} of {int(shard[2])} of a model's weights"
        raise refusal(path, what, "Give the folder in diffusers' layout that has all of them.")
    shapes = tensor_shapes(path)
    if not shapes:
        raise refusal(path, "a file without a single tensor", "Download it again.")
    _refuse_marked(path, shapes, _MARKS)
    if family := next((family for family in families() if family.told(shapes)), None):
        with whole(path, family):
            family.check_file(path, shapes)
        return family
    _refuse_marked(path, shapes, _OTHERS)
    alone = not any(name.startswith(WHOLE) for name in shapes)
    for names, what in _ALONE:
        if alone and any(name in shapes for name in names):
            raise refusal(path, what, PART)
    if len(shapes) <= 4 and all(len(shape) in (1, 2) and not name.endswith((".weight", ".bias")) for name, shape in shapes.items()):
        raise refusal(path, *_WORD)
    some = ", ".join(sorted(shapes)[:2])
    raise _refusal(path, f"no model that this loads: nothing among its {len(shapes)} tensors ({some} …) is a denoiser of one", DRAWS)


def refuse_other_folder(folder: Path) -> None:
    """Raises ParamsError that says what a folder is where its files or their classes tell that it is something else."""
    for names, what, advice in _FOLDER_FILES:
        if any((folder / name).is_file() for name in names):
            raise refusal(folder, what, advice)
    for name in ("model_index.json", "config.json"):
        about = read_json(folder / name, SETTING) if (folder / name).is_file() else {}
        kind = str(about.get("_class_name", "")) if isinstance(about, dict) else ""
        if kind.isidentifier() and not any(kind in family.pipelines for family in families()):
            what, advice = next((what, advice) for part, what, advice in _CLASSES if part in kind)
            raise _refusal(folder, what.format(kind), advice)
        if isinstance(about, dict) and about.get("model_type"):
            raise refusal(folder, f"a text encoder, or another model of transformers ({about['model_type']})", PART)
    files = sorted(f for f in folder.iterdir() if f.suffix in (".safetensors", ".ckpt", ".gguf"))
    if files and not any((folder / part).is_dir() for family in families() for part in family.weights):
        if _SHARD.search(files[0].stem):
            raise refusal(folder, f"no folder in diffusers' layout, but has a piece of a model in it ({files[0].name})", _LAYOUT)
        raise refusal(folder, f"no folder in diffusers' layout, but has {files[0].name} in it", f"Set {SETTING} to that file.")


def _denoiser(folder: Path) -> str:
    return str(part_config(folder, "transformer").get("_class_name", ""))


def _refuse_marked(path: Path, shapes: Shapes, table: tuple[tuple[tuple[str, ...], str, str], ...]) -> None:
    for marks, what, advice in table:
        if any(mark in name for name in shapes for mark in marks):
            raise _refusal(path, what, advice)


def _refusal(path: Path, what: str, advice: str) -> ParamsError:
    return refusal(path, what, advice.format(families=", ".join(family.name for family in families())))
