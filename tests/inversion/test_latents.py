from __future__ import annotations

import os
from tempfile import TemporaryFile

import numpy as np
import pytest
import torch
from PIL import Image

from ti_pipeline.generators.generator import Generator
from ti_pipeline.inversion import latents
from ti_pipeline.inversion.framing import Framing
from ti_pipeline.inversion.latents import encode_pictures, to_tensor

WHITE = (255, 255, 255)


def halves() -> Image.Image:
    """Twice as wide as high: red, then blue."""
    picture = Image.new("RGB", (128, 64), (255, 0, 0))
    picture.paste((0, 0, 255), (64, 0, 128, 64))
    return picture


def test_three_ways_to_a_square() -> None:
    crop, squash, pad = (np.asarray(Framing(fit, (0, 255, 0)).fitted(halves(), (32, 32))) for fit in ("crop", "squash", "pad"))
    assert crop.shape == squash.shape == pad.shape == (32, 32, 3)
    assert (pad[0] == (0, 255, 0)).all() and (pad[16, 0] == (255, 0, 0)).all() and (pad[16, -1] == (0, 0, 255)).all()
    assert (crop[0, 0] == (255, 0, 0)).all() and (squash[0, -1] == (0, 0, 255)).all()
    wide = Image.new("RGB", (192, 64), (255, 0, 0))
    wide.paste((0, 0, 255), (64, 0, 128, 64))
    assert (np.asarray(Framing("crop", WHITE).fitted(wide, (32, 32)))[:, 4:-4] == (0, 0, 255)).all()
    assert (np.asarray(Framing("squash", WHITE).fitted(wide, (32, 32)))[:, 0] == (255, 0, 0)).all()


def test_range_of_pixels() -> None:
    x = to_tensor(Image.fromarray(np.array([[[0, 255, 127]]], dtype=np.uint8)))
    torch.testing.assert_close(x.flatten(), torch.tensor([-1.0, 1.0, -1 / 255]))


def test_a_latent_is_what_the_vae_would_have_drawn(generator: Generator) -> None:
    picture = halves().resize((64, 64))
    posteriors = encode_pictures(generator, [picture, picture.rotate(90)], Framing("squash", WHITE, flip=True))
    assert posteriors.flips == 2 and len(posteriors.places) == 2 and posteriors.shape == (4, 8, 8)
    for flipped, view in enumerate((picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        draw = torch.Generator().manual_seed(3)
        theirs = generator.vae.encode(to_tensor(view)[None]).latent_dist.sample(draw) * generator.vae.config.scaling_factor
        normal = torch.randn(1, *posteriors.shape, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(posteriors.sample([0], torch.tensor([flipped]), normal), theirs)


def test_a_picture_does_not_depend_on_its_company(generator: Generator) -> None:
    pictures = [halves(), halves().rotate(180)]
    together = encode_pictures(generator, pictures, Framing("crop", WHITE, flip=False))
    alone = encode_pictures(generator, pictures[1:], Framing("crop", WHITE, flip=False))
    (both,), (one,) = together.sizes, alone.sizes
    assert torch.equal(both.mean[1], one.mean[0]) and torch.equal(both.std[1], one.std[0])


def test_beyond_the_limit_posteriors_lie_on_the_disk(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [halves(), halves().rotate(180), halves().rotate(90)]
    (kept,) = encode_pictures(generator, pictures, Framing("crop", WHITE, flip=True)).sizes
    monkeypatch.setattr(latents, "MEMORY", 4 * 2 * 4 * 8 * 8 + 1)  # of one picture's view, and not of two
    files = []
    monkeypatch.setattr(latents, "TemporaryFile", lambda: files.append(TemporaryFile()) or files[-1])
    (spilled,) = encode_pictures(generator, pictures, Framing("crop", WHITE, flip=True)).sizes
    assert [os.fstat(file.fileno()).st_size for file in files] == [kept.mean.nbytes + kept.std.nbytes]
    assert torch.equal(spilled.mean, kept.mean) and torch.equal(spilled.std, kept.std)
