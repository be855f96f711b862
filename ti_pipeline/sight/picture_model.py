"""Models of transformers that look at pictures and say how alike two are: the judge, and a DINO that ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoModel
from transformers.utils import logging as transformers_logging

from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_value
from ti_pipeline.foreign import read_json, refuse_code, refuse_pickled_code
from ti_pipeline.model_files import check_whole, digest_config, digest_weights_file, is_hub_name, is_path
from ti_pipeline.tensor_file import digest_weights

BATCH = 64
CONFIG, PREPARATION = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_LOADED = ("*.json", "*.safetensors", "*.bin")


@dataclass(frozen=True, eq=False)
class PictureModel:
    """A frozen picture model in float32. `digest` covers its configuration, its weights and how it prepares pictures; `eyes` are as
    `eyes_of` says."""

    name: str
    digest: str
    eyes: frozenset[str]
    device: torch.device
    embed: Callable[[torch.Tensor], torch.Tensor]
    prepare: Callable[[list[Image.Image]], torch.Tensor]

    @torch.inference_mode()
    def images(self, pictures: list[Image.Image]) -> np.ndarray:
        """L2-normalised embeddings of RGB pictures, float32 `[n, d]`."""
        if not pictures:
            raise ValueError("nothing to embed")
        parts = []
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            for start in range(0, len(pictures), BATCH):
                features = self.embed(self.prepare(pictures[start : start + BATCH]).to(self.device))
                parts.append(F.normalize(features.float().flatten(1), dim=-1))
        return torch.cat(parts).cpu().numpy()


def find_picture_model(model: str, setting: str) -> Path:
    """The folder of a model on this machine's disk; a hub name is downloaded unless it lies in the hub's cache.

    Raises ParamsError that says what is missing, what to download and where to put it; `setting` is the key that names the model.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return checked(folder.resolve(), setting, "Put one there that `hf download OWNER/NAME --local-dir` or `save_pretrained` wrote.")
    if is_path(model) or not is_hub_name(model):
        raise ParamsError(
            f"{setting}: there is no folder at {model}. Put a picture model there that transformers' AutoModel loads, "
            "or give a hub name such as facebook/dino-vits16."
        )
    return checked(_download(model, setting), setting, "Name a model that AutoModel loads, such as facebook/dino-vits16.")


def picture_digest(folder: Path) -> str:
    """SHA-256 over the bytes of every file that is loaded, hexadecimal. Needs nothing loaded."""
    files = _files(folder)
    return digest_value({file.name: digest_config(file, files) if file.name == CONFIG else digest_weights_file(file) for file in files})


def load_picture_model(folder: Path, name: str, setting: str, device: torch.device | str) -> PictureModel:
    """A folder that transformers' AutoModel loads. Raises ParamsError."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()  # what it has to say about weights becomes an error's text here
    transformers_logging.disable_progress_bar()
    try:
        ours = {"local_files_only": True, "trust_remote_code": False}
        model, report = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, weights_only=True, **ours)
        prepare = AutoImageProcessor.from_pretrained(folder, **ours)
    except Exception as error:  # the loaders raise all sorts; the user needs the folder and the reason
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ParamsError(f"{setting}: {folder} cannot be loaded by transformers' AutoModel: {reason}") from None
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
    if model.main_input_name != "pixel_values":
        raise ParamsError(f"{setting}: {name} ({type(model).__name__}) reads {model.main_input_name}, not only pictures. Name another.")
    model.eval().requires_grad_(False).to(device)
    untrained_pooler = _check_weights(folder, setting, {str(key) for key in (*report["missing_keys"], *report.get("mismatched_keys", ()))})

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        out = model(pixel_values=pixels)
        pooled = getattr(out, "pooler_output", None)
        return out.last_hidden_state[:, 0] if pooled is None or untrained_pooler else pooled

    def to_pixels(part: list[Image.Image]) -> torch.Tensor:
        return prepare(part, return_tensors="pt")["pixel_values"]

    return PictureModel(name, picture_digest(folder), eyes_of(model), torch.device(device), embed, to_pixels)


def eyes_of(network: torch.nn.Module) -> frozenset[str]:
    """Digests of the convolutions through which it sees pixels: the same whatever library, file and precision they come from."""
    return frozenset(digest_weights({"": weight.half()}) for weight in network.parameters() if weight.ndim == 4)


def short_name(model: str) -> str:
    """What a model is called: of a path, the folder's own name."""
    return model if "/" not in model or not Path(model).expanduser().is_dir() else Path(model).expanduser().resolve().name


def _check_weights(folder: Path, setting: str, missing: set[str]) -> bool:
    """Whether the pooler was left at random, as in the published DINO files: the class token is what they have instead."""
    pooler = {key for key in missing if key.lstrip("('").startswith("pooler.")}
    if lacking := sorted(missing - pooler):
        raise ParamsError(
            f"{setting}: the weights in {folder} do not fit its {CONFIG}: {len(lacking)} missing or of another shape, "
            f"such as {lacking[0]}. Download that folder again."
        )
    return bool(pooler)


def _download(name: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_LOADED)))
    except Exception as error:  # offline, misspelt, gated, full disk: the remedy is the same
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ParamsError(
            f"{setting}: {name} is neither in the hub's cache nor could it be downloaded ({type(error).__name__}: {reason}). "
            f"Where there is a network, run `hf download {name} --local-dir FOLDER`, copy FOLDER here and set {setting} to it."
        ) from None


def checked(folder: Path, setting: str, advice: str) -> Path:
    """The folder, if it has everything that is loaded. Raises ParamsError."""
    lacks = [name for name in (CONFIG, PREPARATION) if not (folder / name).is_file()]
    lacks += [] if any((folder / name).is_file() for name in _WEIGHTS) else [_WEIGHTS[0]]
    if lacks:
        raise ParamsError(f"{setting}: {folder} lacks {', '.join(lacks)}. {advice}")
    refuse_code(folder, setting)
    read_json(folder / CONFIG, setting)
    for file in _files(folder):
        if file.suffix != ".json":
            check_whole(file, setting)
        if file.suffix == ".bin":
            refuse_pickled_code(file, setting)
    return folder


def _files(folder: Path) -> list[Path]:
    """Configurations and weights; pickles only where there are no safetensors that the loader takes before them."""
    safe = sorted(folder.glob("*.safetensors")) if any((folder / name).is_file() for name in _WEIGHTS[:2]) else []
    return sorted(folder.glob("*.json")) + (safe or sorted(folder.glob("*.bin")))
