from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.generators.tiny_flow import write_stable_diffusion_3
from tests.generators.tiny_language import write_qwen_image, write_sana
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny
from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.load import load_generator
from ti_pipeline.generators.memory import Offload, come_when_used
from ti_pipeline.params import load
from ti_pipeline.planning.footprint import training_bytes
from ti_pipeline.sampling.sample import Settings, sample

TRAIN = load(Path(__file__).parents[2] / "params.yaml").train


def _learn(generator: Generator, layered: bool = False) -> list[torch.Tensor]:
    streams = torch.Generator().manual_seed(3)
    rows = {
        name: (0.1 * torch.randn(1, each.table.shape[1], generator=streams)).requires_grad_() for name, each in generator.encoders.items()
    }
    heard = generator.condition(generator.tokenise(["a photo of a <word>"] * 2, {"<word>": 1}), rows)
    if layered:
        heard = generator.layered([heard] * generator.layers)
    z0, noise = (torch.randn(2, *generator.latent_shape, generator=streams) for _ in range(2))
    loss = generator.losses(z0, noise, torch.tensor([200, 700]), heard).sum()
    return [loss.detach(), *torch.autograd.grad(loss, list(rows.values()))]


def test_checkpointing_gives_the_same_loss_and_gradient_in_less_memory(folder: Path, tmp_path: Path) -> None:
    for model, encoders in ((folder, None), (write_stable_diffusion_3(tmp_path / "three"), ("clip_l", "clip_g", "t5"))):
        whole, twice = (load_tiny(model, encoders=encoders, checkpointing=again) for again in (False, True))
        for ours, theirs in zip(_learn(twice), _learn(whole), strict=True):
            assert torch.equal(ours, theirs)
        assert training_bytes(twice, 4, TRAIN) < 0.6 * training_bytes(whole, 4, TRAIN)


def test_checkpointing_does_not_forget_what_each_layer_hears(folder: Path) -> None:
    whole, twice = load_tiny(folder), load_tiny(folder, checkpointing=True)
    for ours, theirs in zip(_learn(twice, layered=True), _learn(whole, layered=True), strict=True):
        assert torch.equal(ours, theirs)
    assert twice.unet.is_gradient_checkpointing


def test_tiles_give_nearly_the_same_picture() -> None:
    whole, tiled = (load_generator(generator_settings("miniature", vae_tile=edge)) for edge in (None, 64))
    pixels = torch.nn.functional.interpolate(
        torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1)) * 2 - 1, 128, mode="bicubic"
    )
    expected, found = (each.decode(each.posterior(pixels).mean) for each in (whole, tiled))
    assert (expected - found).abs().mean() < 0.05 and not torch.equal(expected, found)
    small = pixels[..., :64, :64]
    assert torch.equal(whole.posterior(small).mean, tiled.posterior(small).mean)


@torch.no_grad()
@pytest.mark.parametrize(("write", "edge"), [(write_sana, 64), (write_sana, 192), (write_qwen_image, 64)])
def test_tiles_of_whole_latents_make_as_many_as_there_are_without(write: Callable[[Path], Path], edge: int, tmp_path: Path) -> None:
    generator = load_tiny(write(tmp_path / "model"), vae_tile=edge)
    shape = generator.latents_of(256, 320)
    latents = generator.posterior(torch.zeros(1, 3, 320, 256)).mean
    assert latents.shape == (1, *shape) and generator.decode(latents).shape == (1, 3, 320, 256)


def test_what_is_not_used_stays_where_it_is() -> None:
    moved: list[torch.device] = []

    class Part(torch.nn.Identity):
        def to(self, device: torch.device):
            moved.append(device)
            return self

    part = Part()
    come_when_used(part, torch.device("cuda"))
    assert moved == []
    part(torch.zeros(1))
    part(torch.zeros(1))
    assert moved == [torch.device("cuda")]  # and only once


def test_offload_lets_the_denoiser_and_the_text_encoders_take_turns(folder: Path) -> None:
    """On one device nothing is copied: who is told to come and to go is watched, and the pictures are the same."""
    generator = load_tiny(folder)
    steps = Settings("ddim", 2, 2.0, "", 2)
    expected = [picture for _, picture in sample(generator, ["a cat", "a dog"], {}, [1, 2], steps)]
    moves: list[str] = []
    for name, network in generator.networks.items():
        network.to = lambda *args, name=name, network=network: (moves.append(name), network)[1]
    encoders = [encoder.model for encoder in generator.encoders.values()]
    offload = Offload(encoders, generator.unet, torch.device("cpu"))
    object.__setattr__(generator, "offload", offload)
    found = [picture for _, picture in sample(generator, ["a cat", "a dog"], {}, [1, 2], steps)]
    assert [picture.tobytes() for picture in found] == [picture.tobytes() for picture in expected]
    assert moves == ["text"] * 3 + ["text"] + ["unet"] * 2 + ["unet"]  # read; leave; two steps; leave
    with offload.drawing():
        reader = threading.Thread(target=lambda: generator.encoders["text"].states(torch.zeros(1, 77, dtype=torch.int64)))
        reader.start()
        reader.join(0.3)
        assert reader.is_alive()  # waits for its turn
    reader.join(60)
    assert not reader.is_alive()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to move parts to")
def test_offload_draws_the_same_pictures_on_a_gpu(folder: Path) -> None:
    steps = Settings("ddim", 3, 2.0, "", 2)
    drawn = []
    for offload in (False, True):
        generator = load_tiny(folder, device="cuda", offload=offload)
        assert next(generator.vae.decoder.parameters()).device.type == "cpu"
        drawn.append([picture.tobytes() for _, picture in sample(generator, ["a cat", "a dog"], {}, [1, 2], steps)])
        assert next(generator.vae.encoder.parameters()).device.type == "cpu"
    assert drawn[0] == drawn[1] and next(generator.unet.parameters()).device.type == "cpu"
