"""The judge: a model other than those that rank, which says how alike two pictures are."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline import params
from ti_pipeline.sight.picture_files import checked, find_picture_model, short_name

if TYPE_CHECKING:
    import torch

    from ti_pipeline.sight.picture_model import PictureModel

SETTING = "judge.model"


def find_judge(settings: params.Judge) -> Path:
    """The folder of `judge.model` on this machine's disk. Raises ParamsError that says what is missing, and where to put it."""
    if settings.model == "miniature":
        folder = Path(str(resources.files("ti_pipeline.miniature"))) / "judge"
        return checked(folder, SETTING, "The package is incomplete: install it again.")
    return find_picture_model(settings.model, SETTING)


def load_judge(settings: params.Judge, device: torch.device | str) -> PictureModel:
    """`miniature`, a folder or a hub name that transformers' AutoModel loads. Raises ParamsError."""
    from ti_pipeline.sight.picture_model import load_picture_model

    return load_picture_model(find_judge(settings), short_name(settings.model), SETTING, device)
