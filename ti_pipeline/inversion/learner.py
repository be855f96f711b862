"""One concept in training: what it draws at each step, from its own streams only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ti_pipeline.generators.generator import Generator
from ti_pipeline.generators.placeholder import check_prompt, check_token
from ti_pipeline.inversion.latents import Posteriors
from ti_pipeline.inversion.streams import Streams
from ti_pipeline.words.word import ONLY


@dataclass(frozen=True)
class Draws:
    """What one concept learns from in one step. `ids` [samples, context], `t` [samples], `z0` and `noise` [samples, c, h, w]."""

    ids: torch.Tensor
    t: torch.Tensor
    z0: torch.Tensor
    noise: torch.Tensor


@dataclass(frozen=True)
class Learner:
    """A concept's posteriors and, for each picture, the ids [prompts, context] of what can be said about it."""

    streams: Streams
    posteriors: Posteriors
    ids: tuple[torch.Tensor, ...]

    @classmethod
    def prepare(
        cls, generator: Generator, streams: Streams, posteriors: Posteriors, prompts: Sequence[Sequence[str]], token: str, vectors: int
    ) -> Learner:
        """`prompts` are those of each picture. Raises ConceptError for a token or a prompt that would be lost in silence."""
        lengths = {token: vectors}
        check_token(generator, streams.concept, token)
        for prompt in dict.fromkeys(prompt for each in prompts for prompt in each):
            check_prompt(generator, streams.concept, prompt, lengths)
        return cls(streams, posteriors, tuple(generator.tokenise(each, lengths)[ONLY] for each in prompts))

    def draw(self, step: int, samples: int, timesteps: int) -> Draws:
        """The draws of step `step` (from 0). Pictures come in shuffled rounds; all else is uniform or normal."""
        streams, shape = self.streams, self.posteriors.shape
        pictures = streams.rounds("picture", step * samples, samples, len(self.ids))
        choice = torch.rand(samples, generator=streams.at("prompt", step)).tolist()
        flipped = streams.uniform("flip", step, self.posteriors.mean.shape[1], samples)
        normal = streams.normal("latent", step, (samples, *shape))
        return Draws(
            ids=torch.stack([self.ids[p][int(u * len(self.ids[p]))] for p, u in zip(pictures, choice, strict=True)]),
            t=streams.uniform("timestep", step, timesteps, samples),
            z0=self.posteriors.sample(pictures, flipped, normal),
            noise=streams.normal("noise", step, (samples, *shape)),
        )

    def evaluation(self, samples: int, timesteps: int) -> Draws:
        """The fixed batch that the concept is evaluated on: pictures, prompts, latents and noise never change.

        Timesteps are the middles of `samples` equal parts of the schedule; the pictures come in turn.
        """
        streams, shape = self.streams, self.posteriors.shape
        pictures = [i % len(self.ids) for i in range(samples)]
        choice = torch.rand(samples, generator=streams.at("evaluation prompt", 0)).tolist()
        normal = streams.normal("evaluation latent", 0, (samples, *shape))
        return Draws(
            ids=torch.stack([self.ids[p][int(u * len(self.ids[p]))] for p, u in zip(pictures, choice, strict=True)]),
            t=(torch.arange(samples) * 2 + 1) * timesteps // (2 * samples),
            z0=self.posteriors.sample(pictures, torch.zeros(samples, dtype=torch.int64), normal),
            noise=streams.normal("evaluation noise", 0, (samples, *shape)),
        )
