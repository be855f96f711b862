"""Learns one concept's word: the optimisation loop, its log, its checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ti_pipeline import params
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_value
from ti_pipeline.generators.load import Generator
from ti_pipeline.generators.source import digest_weights
from ti_pipeline.inversion.adamw import Moments, update
from ti_pipeline.inversion.alarms import check_step
from ti_pipeline.inversion.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from ti_pipeline.inversion.initializer import initial_vectors
from ti_pipeline.inversion.latents import encode_pictures
from ti_pipeline.inversion.learner import Learner
from ti_pipeline.inversion.objective import Diffusion
from ti_pipeline.inversion.pack import losses_and_gradient
from ti_pipeline.inversion.prompts import prompts_for
from ti_pipeline.inversion.schedule import rate_at
from ti_pipeline.inversion.streams import Streams

VERSION = 1  # raised whenever the same inputs give another vector
COLUMNS = ("step", "loss", "norm", "gradient", "rate")
LOOK_EVERY = 25  # steps between reading numbers off an accelerator; each reading waits for it
LAST = 50  # steps that the final loss is the mean of: one step's says little
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Trained:
    """`vectors` float32 [n, d] on the CPU; `log` has a row with COLUMNS for each logged step, steps from 1."""

    vectors: torch.Tensor
    log: list[dict[str, float]]
    steps: int
    resumed_from: int

    @property
    def final_loss(self) -> float:
        last = [row["loss"] for row in self.log if row["step"] > self.steps - LAST]
        return sum(last) / len(last)


def train_concept(generator: Generator, manifest: Manifest, train: params.Train, seed: int, *, checkpoint: Path, initializer: str,
                  progress: Progress | None = None) -> Trained:
    """Textual inversion of one concept (Gal et al. 2022, eq. 2): only the word's vectors move.

    Goes on from `checkpoint` if it is of this very training; killed at any point and started again, it ends in the same bits
    on a CPU. Raises ConceptError for a training that went wrong.
    """
    streams = Streams(seed, manifest.slug)
    prompts = [prompts_for(manifest.kind, manifest.token, p.caption, initializer) for p in manifest.pictures]
    pictures = (manifest.open(picture) for picture in manifest.pictures)
    posteriors = encode_pictures(generator, pictures, train.fit, manifest.background, train.flip)
    learner = Learner.prepare(generator, streams, posteriors, prompts, manifest.token, train.vectors)
    key = digest_value({
        "version": VERSION, "generator": generator.digest, "precision": str(generator.dtype), "manifest": manifest.training_digest,
        "train": train.model_dump(mode="json", exclude={"checkpoint_every"}), "seed": seed, "initializer": initializer,
    })
    state = read_checkpoint(checkpoint, key)
    if state is None:
        rows = initial_vectors(generator, initializer, train.vectors, streams)[None]
        state = Checkpoint(0, rows, Moments.zeros_like(rows), torch.zeros(0, len(COLUMNS), dtype=torch.float64))
    resumed_from = state.step
    table = digest_weights({"vocabulary": generator.vocabulary})
    _learn(generator, learner, train, state, lambda: write_checkpoint(checkpoint, key, state), progress)
    if digest_weights({"vocabulary": generator.vocabulary}) != table:
        raise ConceptError(manifest.slug, f"the vocabulary of {generator.name} was changed during training. Start again with a fresh one.")
    log = [dict(zip(COLUMNS, row, strict=True)) for row in state.log.tolist()]
    return Trained(state.rows[0].cpu(), [{**row, "step": int(row["step"])} for row in log], train.steps, resumed_from)


def _learn(generator: Generator, learner: Learner, train: params.Train, state: Checkpoint, save: Callable[[], None],
           progress: Progress | None) -> None:
    """Move `state` from its step to the last one."""
    concept = learner.streams.concept
    diffusion = Diffusion(generator.scheduler_config, generator.device)
    state.rows = state.rows.to(generator.device)
    state.moments = Moments(state.moments.first.to(generator.device), state.moments.second.to(generator.device))
    bound = train.max_norm * generator.vocabulary.detach().float().norm(dim=-1).median().item()
    samples = train.batch_size * train.gradient_accumulation
    look_every = 1 if generator.device.type == "cpu" else LOOK_EVERY
    unread: list[torch.Tensor] = []
    said = ""
    for step in range(state.step, train.steps):
        rate = rate_at(train, step)
        draws = learner.draw(step, samples, diffusion.timesteps)
        losses, gradient = losses_and_gradient(generator, diffusion, state.rows, [draws], train.gradient_accumulation)
        update(state.rows, gradient, state.moments, torch.tensor([step + 1.0]).double(), torch.tensor([rate]).double(), train.weight_decay)
        state.step = step + 1
        unread.append(torch.stack([losses[0], state.rows[0].norm(dim=-1).max(), gradient[0].norm()]))
        last, saving = state.step == train.steps, state.step % train.checkpoint_every == 0
        if last or saving or len(unread) == look_every:
            loss, norm = _read(concept, unread, state, train, bound)
            said = f"loss {loss:.4f}, norm {norm:.3g}"
        if saving and not last:
            save()
        if progress:
            progress(state.step, train.steps, said)


def _read(concept: str, unread: list[torch.Tensor], state: Checkpoint, train: params.Train, bound: float) -> tuple[float, float]:
    """Move numbers from the device to the log, and raise the alarm for any that are wrong. Returns the last loss and norm."""
    first = state.step - len(unread) + 1
    numbers = torch.stack(unread).cpu().double().tolist()
    unread.clear()
    rows = []
    for step, (loss, norm, gradient) in enumerate(numbers, start=first):
        check_step(concept, step, loss, gradient, norm, bound)
        if step % train.log_every == 0 or step == train.steps:
            rows.append([step, loss, norm, gradient, rate_at(train, step - 1)])
    if rows:
        state.log = torch.cat([state.log, torch.tensor(rows, dtype=torch.float64)])
    return numbers[-1][0], numbers[-1][1]
