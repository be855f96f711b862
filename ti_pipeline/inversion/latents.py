"""Pictures as the generator's own latents: posteriors computed once, a latent sampled from them anew each step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from ti_pipeline.generators.generator import Generator

Fit = Literal["crop", "squash", "pad"]
MEMORY = 2**28  # bytes of one concept's posteriors; of those that are more, the file is on the disk


@dataclass(frozen=True)
class Posteriors:
    """q(z | x) of every picture, float32 [pictures, flips, c, h, w] on the CPU; `flips` is 1 or 2."""

    mean: torch.Tensor
    std: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one latent, [c, h, w]."""
        return tuple(self.mean.shape[2:])

    def sample(self, pictures: Sequence[int], flipped: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Scaled latents z_0 [samples, c, h, w] of `pictures`; `flipped` int64 and `normal` of the latents' shape."""
        at = (torch.as_tensor(pictures), flipped)
        return self.mean[at] + self.std[at] * normal


@torch.no_grad()
def encode_pictures(
    generator: Generator, pictures: Iterable[Image.Image], fit: Fit, background: tuple[int, int, int], flip: bool
) -> Posteriors:
    """Posteriors of RGB pictures, scaled as the denoiser expects them. One picture at a time, so that none depends on its company."""

    def encoded() -> Iterator[torch.Tensor]:
        for picture in pictures:
            x = to_tensor(fit_square(picture, generator.resolution, fit, background)).to(generator.device)
            for view in (x, x.flip(-1)) if flip else (x,):
                posterior = generator.posterior(view[None])
                yield torch.cat([posterior.mean, posterior.std]).cpu()

    both = _stacked(encoded()).unflatten(0, (-1, 2 if flip else 1))
    return Posteriors(both[:, :, 0], both[:, :, 1])


def _stacked(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Float32 tensors of one shape in one; beyond MEMORY bytes it lies in a file that is gone with it, and pages come as needed."""
    kept: list[torch.Tensor] = []
    file, count = None, 0
    for tensor in tensors:
        kept.append(tensor)
        if len(kept) * tensor.nbytes > MEMORY:
            file = file or TemporaryFile()
            count += len(kept)
            file.writelines(each.numpy().tobytes() for each in kept)
            kept.clear()
    if file is None:
        return torch.stack(kept)
    file.writelines(each.numpy().tobytes() for each in kept)
    file.flush()
    return torch.from_numpy(np.memmap(file, np.float32, "r+", shape=(count + len(kept), *tensor.shape)))


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
