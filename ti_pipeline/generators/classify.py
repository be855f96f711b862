"""What a file or folder of weights is, told by what its parts are called before any of them is loaded."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import read_json
from ti_pipeline.generators.checkpoint import tensor_shapes
from ti_pipeline.generators.family import Family, families
from ti_pipeline.generators.refusals import SETTING, check_channels, part_config, refusal
from ti_pipeline.model_files import Shapes

_ADDITION = "It goes with a model and is none: give the model that it was made for, or that model with it merged into it."
_PART = "It is one part of a model: give the whole one."
_WORD = ("a learnt word", "It is what training makes: give the model.")
_OTHER_FAMILY = "Supported: {families}."
# A part of a tensor's name, what a file is that has such a tensor, and what to do. The first that fits is it.
_MARKS = (
    (("lora_", "lora.down", "lora.up", ".hada_w", ".lokr_w"), "a LoRA", _ADDITION),
    (("control_model.", "controlnet_", "input_hint_block."), "a ControlNet", _ADDITION),
    (
        ("double_blocks.", "joint_blocks.", "single_transformer_blocks.", "transformer_blocks.0.attn.add_k_proj."),
        "a diffusion transformer in a single file",
        "Those are read from folders: give the whole model in diffusers' layout.",
    ),
)
_LAYOUT = "Download a whole model in diffusers' layout (`hf download OWNER/NAME --local-dir FOLDER`) and set it to FOLDER."
_UNET, _VAE = "model.diffusion_model.", "first_stage_model."
_FIRST = "model.diffusion_model.input_blocks.0.0.weight"
_ALONE = (  # a part of its own, by names that nothing but it has
    (
        (
            "down_blocks.0.resnets.0.time_emb_proj.weight", "time_embedding.linear_1.weight", "time_embed.0.weight",
            "add_embedding.linear_1.weight",
        ),
        "a U-Net alone",
    ),
    (("decoder.conv_in.weight", "encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight"), "a VAE"),
    (("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight"), "a text encoder"),
)  # fmt: skip
_CLASSES = {  # `_class_name` of model_index.json or config.json
    "ControlNetModel": ("a ControlNet", _ADDITION),
    "AutoencoderKL": ("a VAE", _PART),
    "UNet2DConditionModel": ("a U-Net alone", _PART),
    "StableDiffusionControlNetPipeline": ("a Stable Diffusion with a ControlNet in it", "Give the model without it."),
}
_FOLDER_FILES = (
    (("adapter_config.json", "pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"), "a LoRA", _ADDITION),
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
    """The family of a single file. Raises ParamsError that says what the file is unless it holds a whole text-to-image model."""
    shapes = tensor_shapes(path)
    if not shapes:
        raise refusal(path, "a file without a single tensor", "Download it again.")
    for marks, what, advice in _MARKS:
        if any(mark in name for name in shapes for mark in marks):
            raise _refusal(path, what, advice)
    family = next((family for family in families() if _has(shapes, family.text)), None)
    lacking = [part for part, start in (("a VAE", _VAE), ("a text encoder", family.text if family else "")) if not _has(shapes, start)]
    if family and _has(shapes, _UNET) and not lacking:
        if _FIRST in shapes:
            check_channels(path, shapes[_FIRST][1], 4)
        return family
    for names, what in _ALONE:
        if any(name in shapes for name in names):
            raise refusal(path, what, _PART)
    if _has(shapes, _UNET):
        raise refusal(path, f"a Stable Diffusion without {' and '.join(lacking)}", _PART)
    if len(shapes) <= 4 and all(len(shape) <= 2 for shape in shapes.values()):
        raise refusal(path, *_WORD)
    some = ", ".join(sorted(shapes)[:2])
    raise _refusal(path, f"no Stable Diffusion: nothing among its {len(shapes)} tensors ({some} …) is a U-Net of one", _OTHER_FAMILY)


def refuse_other_folder(folder: Path) -> None:
    """Raises ParamsError that says what a folder is where its files or their classes tell that it is something else."""
    for names, what, advice in _FOLDER_FILES:
        if any((folder / name).is_file() for name in names):
            raise refusal(folder, what, advice)
    for name in ("model_index.json", "config.json"):
        about = read_json(folder / name, SETTING) if (folder / name).is_file() else {}
        kind = str(about.get("_class_name", "")) if isinstance(about, dict) else ""
        if known := _CLASSES.get(kind):
            raise _refusal(folder, *known)
        if kind.isidentifier() and kind.endswith("Pipeline") and not any(kind in family.pipelines for family in families()):
            raise _refusal(folder, f"a model for the {kind}", _OTHER_FAMILY)
    files = sorted(f.name for f in folder.iterdir() if f.suffix in (".safetensors", ".ckpt"))
    if files and not (folder / "unet").is_dir():
        raise refusal(folder, f"no folder in diffusers' layout, but has {files[0]} in it", f"Set {SETTING} to that file.")


def _denoiser(folder: Path) -> str:
    return str(part_config(folder, "transformer").get("_class_name", ""))


def _has(shapes: Shapes, start: str) -> bool:
    return bool(start) and any(name.startswith(start) for name in shapes)


def _refusal(path: Path, what: str, advice: str) -> ParamsError:
    return refusal(path, what, advice.format(families=", ".join(family.name for family in families())))
