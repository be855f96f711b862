"""The loop against the paper's equation, written as plainly as possible with stock diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch.nn import functional as F

import ti_pipeline
from tests.generators.tiny_stable_diffusion import load_tiny, write_folder
from tests.inversion.one_concept import train_concept
from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.framing import Framing
from ti_pipeline.inversion.initializer import initial_rows
from ti_pipeline.inversion.latents import encode_pictures
from ti_pipeline.inversion.learner import Learner
from ti_pipeline.inversion.prompts import prompts_for
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.words.word import ONLY

MINIATURE = Path(ti_pipeline.__file__).parent / "miniature" / "generator"


def plain_inversion(folder: Path, start: torch.Tensor, draws: list[Draws], train: params.Train) -> torch.Tensor:
    """v* = argmin_v E[ || target - e_theta(z_t, t, c_theta(y)) ||^2 ]: the whole table is trained, then put back but for v."""
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
    for network in (pipe.vae, pipe.unet, pipe.text_encoder):
        network.requires_grad_(False).eval()
    words = pipe.text_encoder.get_input_embeddings().num_embeddings
    table = pipe.text_encoder.resize_token_embeddings(words + len(start), mean_resizing=False).weight.requires_grad_(True)
    with torch.no_grad():
        table[words:] = start
    frozen = table[:words].detach().clone()
    optimizer = torch.optim.AdamW([table], lr=train.learning_rate, weight_decay=train.weight_decay)
    for draw in draws:
        target = {"epsilon": draw.noise, "sample": draw.z0, "v_prediction": scheduler.get_velocity(draw.z0, draw.noise, draw.t)}[
            scheduler.config.prediction_type
        ]
        hidden = pipe.text_encoder(draw.ids[ONLY])[0]
        loss = F.mse_loss(pipe.unet(scheduler.add_noise(draw.z0, draw.noise, draw.t), draw.t, hidden).sample, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            table[:words] = frozen
    return table[words:].detach()


@pytest.mark.parametrize(
    ("prediction", "vectors", "steps"), [("epsilon", 1, 12), ("v_prediction", 2, 12), ("sample", 1, 12), ("miniature", 1, 50)]
)
def test_same_draws_give_the_same_vector(
    prediction: str, vectors: int, steps: int, tmp_path: Path, validated: Callable[..., Manifest], settings: Callable[..., params.Params]
) -> None:
    folder = write_folder(tmp_path / "model", prediction_type=prediction) if prediction != "miniature" else MINIATURE
    generator, manifest = load_tiny(folder), validated()
    train = settings("train.schedule=constant", f"train.steps={steps}", f"train.vectors={vectors}", "train.flip=true").train
    trained = train_concept(generator, manifest, train, 7, checkpoint=tmp_path / "checkpoint", initializer="mug")

    streams = Streams(7, manifest.slug)
    start = initial_rows(generator, "mug", vectors, streams)[ONLY]
    posteriors = encode_pictures(
        generator, [manifest.open(p) for p in manifest.pictures], Framing(train.fit, manifest.background, flip=True)
    )
    prompts = [prompts_for(manifest.neutral, manifest.token, None, "mug") for _ in manifest.pictures]
    learner = Learner(streams, 1000, posteriors, ()).saying(generator, prompts, {manifest.token: vectors})
    draws = [learner.draw(step, train.batch_size) for step in range(steps)]
    expected = plain_inversion(folder, start, draws, train)

    vectors = trained.word.rows[ONLY]
    assert F.cosine_similarity(vectors.flatten(), expected.flatten(), dim=0) > 0.99999
    moved, expected_move = vectors - start, expected - start
    assert F.cosine_similarity(moved.flatten(), expected_move.flatten(), dim=0) > 0.9999
    assert moved.norm() > 0.1 * start.norm()
