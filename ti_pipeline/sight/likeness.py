"""What orders candidates: a CLIP, and for likeness a DINO in its place or beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ti_pipeline import params
from ti_pipeline.files import digest_value
from ti_pipeline.sight.picture_files import find_picture_model, short_name

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ti_pipeline.sight.picture_model import PictureModel
    from ti_pipeline.sight.ranker import Ranker

SETTING = "ranker.dino"


@dataclass(frozen=True, eq=False)
class Sight:
    """The CLIP says how faithful a candidate is to its brief, and which are near-duplicates. Likeness is the mean cosine to the references
    by it (`clip`), by the DINO, or, where both count, the mean of the two."""

    ranker: Ranker
    dino: PictureModel | None = None
    clip: bool = True

    @property
    def name(self) -> str:
        return self.ranker.name + (f"; likeness by {self.likeness}" if self.dino else "")

    @property
    def likeness(self) -> str:
        """The names of the models that say how alike pictures are."""
        names = [self.ranker.name] if self.clip else []
        return " and ".join([*names, *([self.dino.name] if self.dino else [])])

    def likeness_to(self, references: list[Image.Image], pictures: Iterable[Image.Image], embeddings: np.ndarray) -> np.ndarray:
        """Mean cosine [n] to the references, of pictures of which the CLIP's embeddings are there, float64 [n, d]."""
        by_clip = (embeddings @ self.ranker.images(references).astype(np.float64).T).mean(axis=1)
        if not self.dino:
            return by_clip
        seen = np.concatenate([self.dino.images([picture]) for picture in pictures])
        by_dino = (seen.astype(np.float64) @ self.dino.images(references).astype(np.float64).T).mean(axis=1)
        return (by_clip + by_dino) / 2 if self.clip else by_dino

    @property
    def digest(self) -> str:
        return sight_digest(self.ranker.digest, self.dino.digest if self.dino else None, self.clip)


def sight_digest(ranker: str, dino: str | None, clip: bool) -> str:
    """That of a `Sight` by those of its models, which need not be loaded."""
    return digest_value([ranker, dino, clip]) if dino else ranker


def find_dino(settings: params.Ranker) -> Path | None:
    """The folder of the DINO on this machine's disk, if `ranker.likeness` asks for one. Raises ParamsError."""
    if settings.likeness == "clip" or settings.dino is None:
        return None
    return find_picture_model(settings.dino, SETTING)


def load_dino(settings: params.Ranker, device: torch.device | str) -> PictureModel | None:
    """The same, loaded. Raises ParamsError."""
    from ti_pipeline.sight.picture_model import load_picture_model

    folder = find_dino(settings)
    return load_picture_model(folder, short_name(str(settings.dino)), SETTING, device) if folder else None


def not_another(judge: PictureModel, sight: Sight) -> str | None:
    """What to say where the judge is a model that ranked."""
    if sight.dino and judge.eyes & sight.dino.eyes:
        which = "the DINO that ranks too (ranker.dino)"
    elif judge.eyes & sight.ranker.eyes:
        which = "what the CLIP sees with that ranks too (ranker.model)"
    else:
        return None
    return f"The judge {judge.name} is {which}, so it finds good what was chosen for pleasing it. Set judge.model to another model."
