"""Single-file checkpoints in the original layout (.safetensors, .ckpt).

Such a file has weights and no configuration. A folder beside it with its name (`dream.safetensors`, `dream/`) that holds the
configuration in diffusers' layout is taken; without one the file is read as Stable Diffusion 1.x, whose configuration is here.
A 2.x file does not even say whether it predicts epsilon or v, so it needs the folder. Neither way reads anything from a network.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import refuse_pickled_code
from ti_pipeline.generators.classify import SETTING, refuse_other_weights
from ti_pipeline.generators.source import PARTS
from ti_pipeline.generators.stable_diffusion_1 import MODEL_INDEX, write_configuration
from ti_pipeline.model_files import Shapes, check_whole, safetensors_shapes

_OPEN_CLIP = "cond_stage_model.model.token_embedding.weight"  # the text encoder of 2.x
# What trainers write beside the weights. Its classes are not needed, and stand-ins take their places.
_BESIDE = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy", "ldm", "typing", "collections")


def load_single_file(path: Path, dtype: torch.dtype) -> tuple:
    """Tokenizer, text encoder, VAE (float32), U-Net, scheduler configuration of a checkpoint file."""
    check_whole(path, SETTING)
    stand_ins = [] if path.suffix == ".safetensors" else _stand_ins(path)
    with torch.serialization.safe_globals(stand_ins):
        shapes = safetensors_shapes(path, SETTING) if path.suffix == ".safetensors" else _checkpoint_shapes(path)
        refuse_other_weights(path, shapes)
        with tempfile.TemporaryDirectory() as folder:
            if (beside := path.with_suffix("")).is_dir():
                _take_configuration(path, beside, Path(folder))
            elif _OPEN_CLIP in shapes:
                raise ParamsError(
                    f"{SETTING}: {path.name} is a Stable Diffusion 2.x checkpoint, which does not say whether it predicts epsilon or v. "
                    f"Put its configuration in diffusers' layout (the folders {', '.join(PARTS)}; no weights) into {beside}."
                )
            else:
                write_configuration(Path(folder))
            return _load(path, Path(folder), dtype)


def _take_configuration(path: Path, beside: Path, folder: Path) -> None:
    """The parts' configurations that lie beside a file; which classes they are is said here and not asked there."""
    if missing := [part for part in PARTS if not any((beside / part).glob("*.json"))]:
        raise ParamsError(f"{SETTING}: {beside}, the configuration of {path.name}, lacks {', '.join(missing)}.")
    for part in PARTS:
        (folder / part).symlink_to((beside / part).resolve(), target_is_directory=True)
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX), encoding="utf-8")


def _load(path: Path, configuration: Path, dtype: torch.dtype) -> tuple:
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path), config=str(configuration), local_files_only=True, torch_dtype=torch.float32, safety_checker=None, feature_extractor=None
    )
    networks = {"text encoder": pipeline.text_encoder, "VAE": pipeline.vae, "U-Net": pipeline.unet}
    for part, network in networks.items():
        if lacking := sorted(name for name, weight in network.state_dict().items() if weight.is_meta):
            raise ParamsError(
                f"{SETTING}: {path} lacks {len(lacking)} weights of its {part}, such as {lacking[0]}. Download it again, or another one."
            )
    if dtype != torch.float32:
        pipeline.text_encoder.to(dtype), pipeline.unet.to(dtype)
    return pipeline.tokenizer, pipeline.text_encoder, pipeline.vae, pipeline.unet, dict(pipeline.scheduler.config)


def _stand_ins(path: Path) -> list[tuple[type, str]]:
    """Empty classes for the trainers' own in a checkpoint, as the published `sd-v1-4.ckpt` has them. Nothing of a pickle runs."""
    return [(_stand_in(name), name) for name in refuse_pickled_code(path, SETTING, _BESIDE)]


def _stand_in(name: str) -> type:
    def nothing(self: object, *_: object, **__: object) -> None: ...

    return type(name.rpartition(".")[2], (), {"__init__": nothing, "__setstate__": nothing, "__setitem__": nothing})


def _checkpoint_shapes(path: Path) -> Shapes:
    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        raise ParamsError(
            f"{SETTING}: {path} is broken, or holds more than weights and is not read ({reason}). Take the model's .safetensors file."
        ) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: tuple(getattr(value, "shape", ())) for name, value in content.items() if isinstance(name, str)}
