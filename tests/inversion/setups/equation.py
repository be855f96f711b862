"""The paper's equation as plainly as it can be written with stock diffusers, for what setups add to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from torch.func import functional_call
from torch.nn import functional as F

from ti_pipeline import params
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.words.word import ONLY

Steps = Callable[[int], int]
Move = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]


def invert(
    folder: Path,
    start: torch.Tensor,
    draws: Sequence[Draws],
    train: params.Train,
    penalty: Callable[[torch.Tensor], torch.Tensor] = lambda v: v.new_zeros(()),
    length: Steps | None = None,
    move: Move | None = None,
) -> torch.Tensor:
    """argmin_v E ‖target − ε_θ(z_t, t, c_θ(y))‖² + penalty(v), by AdamW at a constant rate or by `move`, (step from 1, v, gradient) to v.

    Before step s (from 0) the word has `length(s)` of the rows of `start`; one that has not joined yet is as it starts.
    """
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
    scheduler, encoder = DDPMScheduler.from_config(pipe.scheduler.config), pipe.text_encoder
    for network in (pipe.unet, encoder):
        network.requires_grad_(False).eval()
    table = encoder.get_input_embeddings().weight
    name = next(name for name, weight in encoder.named_parameters() if weight is table)
    v = start.clone().requires_grad_()
    optimizer = torch.optim.AdamW([v], lr=train.learning_rate, weight_decay=train.weight_decay)
    for step, draw in enumerate(draws):
        hidden = functional_call(encoder, {name: torch.cat([table, v])}, (draw.ids[ONLY],))[0]
        predicted = pipe.unet(scheduler.add_noise(draw.z0, draw.noise, draw.t), draw.t, hidden).sample
        optimizer.zero_grad()
        (F.mse_loss(predicted, draw.noise) + penalty(v)).backward()
        if move:
            with torch.no_grad():
                v.copy_(move(step + 1, v, v.grad))
        else:
            optimizer.step()
        if length:
            with torch.no_grad():
                v[length(step) :] = start[length(step) :]
    return v.detach()
