"""Pictures as the generator's own latents: posteriors computed once, a latent sampled from them anew each step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import torch
from PIL import Image

from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion.framing import Framing, Size

MEMORY = 2**28  # bytes of one concept's posteriors of one size; of those that are more, the file is on the disk


@dataclass(frozen=True)
class OneSize:
    """q(z | x) of pictures of one size, float32 [pictures, flips, c, h, w] on the CPU; `flips` is 1 or 2.

    `weight` [pictures, flips, 1, h, w] is how much each place counts, 1 on average; None where no picture of the concept has a mask.
    """

    mean: torch.Tensor
    std: torch.Tensor
    weight: torch.Tensor | None = None


@dataclass(frozen=True)
class Posteriors:
    """Of all pictures of a concept: `places` says of each in which of `sizes` it is, and which of these."""

    sizes: tuple[OneSize, ...]
    places: tuple[tuple[int, int], ...]

    @property
    def flips(self) -> int:
        return self.sizes[0].mean.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a latent that holds each of them, [c, h, w]."""
        shapes = [one.mean.shape[2:] for one in self.sizes]
        return shapes[0][0], max(shape[1] for shape in shapes), max(shape[2] for shape in shapes)

    def extents(self, pictures: Sequence[int]) -> tuple[tuple[int, int], ...] | None:
        """Height and width of the latent of each of `pictures`; None where all of the concept have one."""
        if len(self.sizes) == 1:
            return None
        extents = [(one.mean.shape[-2], one.mean.shape[-1]) for one in self.sizes]
        return tuple(extents[self.places[picture][0]] for picture in pictures)

    def sample(self, pictures: Sequence[int], flipped: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Scaled latents z_0 of `pictures`, zero beyond a smaller one; `flipped` int64 [samples], `normal` [samples, *shape]."""
        if len(self.sizes) == 1:
            (one,), at = self.sizes, (torch.as_tensor(pictures), flipped)
            return one.mean[at] + one.std[at] * normal
        z0 = torch.zeros_like(normal)
        for sample, (picture, flip) in enumerate(zip(pictures, flipped.tolist(), strict=True)):
            of, place = self.places[picture]
            mean, std = self.sizes[of].mean[place, flip], self.sizes[of].std[place, flip]
            _, height, width = mean.shape
            z0[sample, :, :height, :width] = mean + std * normal[sample, :, :height, :width]
        return z0

    def weights(self, pictures: Sequence[int], flipped: torch.Tensor) -> torch.Tensor | None:
        """How much each place of `pictures` counts, [samples, 1, h, w]; None where there is no mask."""
        if all(one.weight is None for one in self.sizes):
            return None
        weights = torch.ones(len(pictures), 1, *self.shape[1:])
        for sample, (picture, flip) in enumerate(zip(pictures, flipped.tolist(), strict=True)):
            of, place = self.places[picture]
            weight = self.sizes[of].weight
            assert weight is not None
            _, height, width = weight.shape[2:]
            weights[sample, :, :height, :width] = weight[place, flip]
        return weights


@torch.no_grad()
def encode_pictures(
    generator: Generator, pictures: Iterable[Image.Image], framing: Framing, masks: Iterable[Image.Image | None] = repeat(None)
) -> Posteriors:
    """Posteriors of RGB pictures, scaled as the denoiser expects them. One picture at a time, so that none depends on its company.

    `masks` (L, as large as their pictures) say what counts in each; None is all of it.
    """
    piles: defaultdict[Size, _Pile] = defaultdict(_Pile)
    weights: defaultdict[Size, list[torch.Tensor]] = defaultdict(list)
    places, masked = [], False
    for picture, mask in zip(pictures, masks, strict=False):
        size = framing.size(picture.size, generator.resolution, generator.grid)
        seen = to_tensor(framing.fitted(picture, size)).to(generator.device)
        pile = piles[size]
        for view in (seen, seen.flip(-1)) if framing.flip else (seen,):
            posterior = generator.posterior(view[None])
            pile.add(torch.cat([posterior.mean, posterior.std]).cpu())
        weight = torch.ones(posterior.mean.shape[-2:])
        if mask is not None:
            masked, weight = True, to_weight(framing.fitted(mask, size), weight.shape)
        weights[size] += [weight, weight.flip(-1)] if framing.flip else [weight]
        places.append((list(piles).index(size), (pile.count - 1) // (2 if framing.flip else 1)))
    sizes = []
    for size, pile in piles.items():
        both = pile.whole().unflatten(0, (-1, 2 if framing.flip else 1))
        counts = torch.stack(weights[size])[:, None].unflatten(0, both.shape[:2]) if masked else None
        sizes.append(OneSize(both[:, :, 0], both[:, :, 1], counts))
    return Posteriors(tuple(sizes), tuple(places))


class _Pile:
    """Float32 tensors of one shape; beyond MEMORY bytes they lie in a file that is gone with them, and pages come as needed."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[torch.Tensor] = []
        self._file: IO[bytes] | None = None

    def add(self, tensor: torch.Tensor) -> None:
        self._kept.append(tensor)
        self.count += 1
        if len(self._kept) * tensor.nbytes > MEMORY:
            self._file = self._file or TemporaryFile()
            self._spill(self._file)

    def whole(self) -> torch.Tensor:
        """All of them in one."""
        if self._file is None:
            return torch.stack(self._kept)
        shape = self._shape
        self._spill(self._file)
        self._file.flush()
        return torch.from_numpy(np.memmap(self._file, np.float32, "r+", shape=(self.count, *shape)))

    def _spill(self, file: IO[bytes]) -> None:
        for each in self._kept:
            self._shape = tuple(each.shape)
            file.write(each.numpy().tobytes())
        self._kept.clear()


def to_weight(mask: Image.Image, shape: Sequence[int]) -> torch.Tensor:
    """How much each place of a latent [h, w] counts by a mask (L), 1 on average; all the same where nothing is left of it."""
    height, width = shape
    weight = torch.from_numpy(np.array(mask.resize((width, height), Image.Resampling.BOX), dtype=np.float32)) / 255
    return weight / weight.mean() if weight.any() else torch.ones_like(weight)


def to_tensor(picture: Image.Image) -> torch.Tensor:
    """RGB to float32 [3, h, w] in [-1, 1]."""
    return torch.from_numpy(np.array(picture, dtype=np.float32)).permute(2, 0, 1) / 127.5 - 1
