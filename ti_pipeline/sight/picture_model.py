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
from ti_pipeline.sight.eyes import eyes_of
from ti_pipeline.sight.picture_files import CONFIG, picture_digest

BATCH = 64


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


def _check_weights(folder: Path, setting: str, missing: set[str]) -> bool:
    """Whether the pooler was left at random, as in the published DINO files: the class token is what they have instead."""
    pooler = {key for key in missing if key.lstrip("('").startswith("pooler.")}
    if lacking := sorted(missing - pooler):
        raise ParamsError(
            f"{setting}: the weights in {folder} do not fit its {CONFIG}: {len(lacking)} missing or of another shape, "
            f"such as {lacking[0]}. Download that folder again."
        )
    return bool(pooler)
