"""Pictures as the generator's own latents: posteriors computed once, a latent sampled from them anew each step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from ti_pipeline.generators.load import Generator

Fit = Literal["crop", "squash", "pad"]


@dataclass(frozen=True)
class Posteriors:
    """q(z | x) of every picture, float32 [pictures, flips, c, h, w] on the generator's device; `flips` is 1 or 2."""

    mean: torch.Tensor
    std: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one latent, [c, h, w]."""
        return tuple(self.mean.shape[2:])

    def sample(self, pictures: Sequence[int], flipped: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Scaled latents z_0 [samples, c, h, w] of `pictures`; `flipped` int64 and `normal` of the latents' shape."""
        at = (torch.as_tensor(pictures, device=self.mean.device), flipped.to(self.mean.device))
        return self.mean[at] + self.std[at] * normal.to(self.mean.device)


@torch.no_grad()
def encode_pictures(generator: Generator, pictures: Iterable[Image.Image], fit: Fit, background: tuple[int, int, int],
                    flip: bool) -> Posteriors:
    """Posteriors of RGB pictures, scaled as the U-Net expects them. One picture at a time, so that none depends on its company."""
    scale = generator.vae.config.scaling_factor
    means, stds = [], []
    for picture in pictures:
        x = to_tensor(fit_square(picture, generator.resolution, fit, background)).to(generator.device)
        for view in (x, x.flip(-1)) if flip else (x,):
            posterior = generator.vae.encode(view[None]).latent_dist
            means.append(posterior.mean[0] * scale)
            stds.append(posterior.std[0] * scale)
    views = 2 if flip else 1
    return Posteriors(*(torch.stack(each).unflatten(0, (-1, views)) for each in (means, stds)))


def fit_square(picture: Image.Image, edge: int, fit: Fit, background: tuple[int, int, int]) -> Image.Image:
    """A square of `edge` pixels: the centre is cut out, the whole is squashed, or it is put on the background colour."""
    size, how = (edge, edge), Image.Resampling.LANCZOS
    if fit == "crop":
        return ImageOps.fit(picture, size, how)
    if fit == "pad":
        return ImageOps.pad(picture, size, how, color=background)
    return picture.resize(size, how)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB to float32 [3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
