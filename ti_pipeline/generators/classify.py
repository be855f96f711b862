"""What a file or folder of weights is, told by what its parts are called before any of them is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import read_json
from ti_pipeline.model_files import Shapes

SETTING = "generator.model"
_OTHER_FAMILY = "Stable Diffusion 1.x and 2.x are supported."
_ADDITION = "It goes with a model and is none: give the model that it was made for, or that model with it merged into it."
_PART = "It is one part of a model: give the whole one."
_WORD = ("a learnt word", "It is what training makes: give the model.")
# A part of a tensor's name, what a file is that has such a tensor, and what to do. The first that fits is it.
_MARKS = (
    (("lora_", "lora.down", "lora.up", ".hada_w", ".lokr_w"), "a LoRA", _ADDITION),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet", _ADDITION),
    (("double_blocks.",), "a Flux model", _OTHER_FAMILY),
    (("joint_blocks.",), "a Stable Diffusion 3 model", _OTHER_FAMILY),
    (("conditioner.embedders.", "add_embedding.linear_1."), "an SDXL model", _OTHER_FAMILY),
    (("single_transformer_blocks.", "transformer_blocks.0.attn.add_k_proj."), "a diffusion transformer", _OTHER_FAMILY),
)
_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
_FIRST = "model.diffusion_model.input_blocks.0.0.weight"
_ALONE = (  # a part of its own, by names that nothing but it has
    (("down_blocks.0.resnets.0.time_emb_proj.weight", "time_embedding.linear_1.weight", "time_embed.0.weight"), "a U-Net alone"),
    (("decoder.conv_in.weight", "encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight"), "a VAE"),
    (("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"), "a text encoder"),
)
_CLASSES = {  # `_class_name` of model_index.json or config.json
    "ControlNetModel": ("a ControlNet", _ADDITION),
    "AutoencoderKL": ("a VAE", _PART),
    "UNet2DConditionModel": ("a U-Net alone", _PART),
    "FluxPipeline": ("a Flux model", _OTHER_FAMILY),
    "StableDiffusion3Pipeline": ("a Stable Diffusion 3 model", _OTHER_FAMILY),
    "StableDiffusionXLPipeline": ("an SDXL model", _OTHER_FAMILY),
    "StableDiffusionControlNetPipeline": ("a Stable Diffusion with a ControlNet in it", "Give the model without it."),
}
_FOLDER_FILES = (
    (("adapter_config.json", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"), "a LoRA", _ADDITION),
    (("learned_embeds.safetensors", "learned_embeds.bin"), *_WORD),
)


def refuse_other_weights(path: Path, shapes: Shapes) -> None:
    """Raises ParamsError that says what a single file is unless it holds a whole Stable Diffusion of text to image."""
    if not shapes:
        raise _refusal(path, "a file without a single tensor", "Download it again.")
    for marks, what, advice in _MARKS:
        if any(mark in name for name in shapes for mark in marks):
            raise _refusal(path, what, advice)
    parts = {part: any(name.startswith(part) for name in shapes) for part in (_UNET, _VAE, _TEXT)}
    if all(parts.values()):
        if _FIRST in shapes:
            _check_channels(path, shapes[_FIRST][1], 4)
        return
    for names, what in _ALONE:
        if any(name in shapes for name in names):
            raise _refusal(path, what, _PART)
    if parts[_UNET]:
        lacking = " and ".join(what for part, what in ((_VAE, "a VAE"), (_TEXT, "a text encoder")) if not parts[part])
        raise _refusal(path, f"a Stable Diffusion without {lacking}", _PART)
    if len(shapes) <= 4 and all(len(shape) <= 2 for shape in shapes.values()):
        raise _refusal(path, *_WORD)
    some = ", ".join(sorted(shapes)[:2])
    raise _refusal(path, f"no Stable Diffusion: nothing among its {len(shapes)} tensors ({some} …) is a U-Net of one", _OTHER_FAMILY)


def refuse_other_folder(folder: Path) -> None:
    """Raises ParamsError that says what a folder is where its files or their classes tell that it is something else."""
    for names, what, advice in _FOLDER_FILES:
        if any((folder / name).is_file() for name in names):
            raise _refusal(folder, what, advice)
    for name in ("model_index.json", "config.json"):
        about = read_json(folder / name, SETTING) if (folder / name).is_file() else {}
        if known := _CLASSES.get(str(about.get("_class_name")) if isinstance(about, dict) else ""):
            raise _refusal(folder, *known)
    if (folder / "text_encoder_2").is_dir():
        raise _refusal(folder, "an SDXL model (it has two text encoders)", _OTHER_FAMILY)
    files = sorted(f.name for f in folder.iterdir() if f.suffix in (".safetensors", ".ckpt"))
    if files and not (folder / "unet").is_dir():
        raise _refusal(folder, f"no folder in diffusers' layout, but has {files[0]} in it", f"Set {SETTING} to that file.")


def refuse_other_parts(folder: Path) -> None:
    """Raises ParamsError where the configurations of a diffusers folder's parts do not make a Stable Diffusion of text to image."""
    unet, vae, text = (_config(folder, part) for part in ("unet", "vae", "text_encoder"))
    if unet.get("addition_embed_type") == "text_time":
        raise _refusal(folder, "an SDXL model", _OTHER_FAMILY)
    if "in_channels" in unet:
        _check_channels(folder, unet["in_channels"], vae.get("latent_channels", 4))
    heard, said = unet.get("cross_attention_dim"), text.get("hidden_size")
    if isinstance(heard, int) and isinstance(said, int) and heard != said:
        raise _refusal(
            folder,
            f"put together from two models: its U-Net hears texts of width {heard}, and its text encoder's are {said} wide",
            "Download the whole model again.",
        )


def _config(folder: Path, part: str) -> dict[str, Any]:
    path = folder / part / "config.json"
    content = read_json(path, SETTING) if path.is_file() else {}
    if not isinstance(content, dict):
        raise ParamsError(f"{SETTING}: {path} holds no table of settings. Download that file again.")
    return content


def _check_channels(path: Path, channels: int, latent: int) -> None:
    if channels == 2 * latent + 1:
        raise _refusal(path, "an inpainting model (its U-Net sees a mask and a masked picture too)", "Give the model that draws from text.")
    if channels != latent:
        more = f"its U-Net takes {channels} channels, of which latents are {latent}"
        raise _refusal(path, f"a model that draws from more than text ({more})", "Give the model that draws from text.")


def _refusal(path: Path, what: str, advice: str) -> ParamsError:
    return ParamsError(f"{SETTING}: {path} is {what}. {advice}")
