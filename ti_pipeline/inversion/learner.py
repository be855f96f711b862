"""One concept in training: what it draws at each step, from its own streams only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ti_pipeline.generators.generator import Generator, Ids
from ti_pipeline.inversion.latents import Posteriors
from ti_pipeline.inversion.streams import Streams


@dataclass(frozen=True)
class Draws:
    """What one concept learns from in one step. `ids` [samples, context] by text encoder, `t` [samples], `z0` and `noise`
    [samples, c, h, w]; `beside` [samples, …] is what setups need besides, by names of their own."""

    ids: Ids
    t: torch.Tensor
    z0: torch.Tensor
    noise: torch.Tensor
    beside: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def part(self, part: int, parts: int) -> Draws:
        """One of several equal parts of the samples."""
        ids, beside = ({name: of.chunk(parts)[part] for name, of in each.items()} for each in (self.ids, self.beside))
        t, z0, noise = (of.chunk(parts)[part] for of in (self.t, self.z0, self.noise))
        return Draws(ids, t, z0, noise, beside)


@dataclass(frozen=True)
class Learner:
    """A concept's posteriors and, for each picture, the ids [prompts, context] of what can be said about it, by text encoder.

    `timesteps` are the generator's; `lengths` are the rows of each token in what can be said, `instead` what text encoders that do not
    learn read in its place.
    """

    streams: Streams
    timesteps: int
    posteriors: Posteriors
    ids: tuple[Ids, ...]
    lengths: Mapping[str, int] = field(default_factory=dict)
    instead: str = ""

    def saying(self, generator: Generator, prompts: Sequence[Sequence[str]], lengths: Mapping[str, int]) -> Learner:
        """With `prompts` for each picture, in which each token stands for as many rows as `lengths` say."""
        return replace(self, ids=tuple(generator.tokenise(each, lengths, self.instead) for each in prompts), lengths=lengths)

    def draw(self, step: int, samples: int) -> Draws:
        """The draws of step `step` (from 0). Pictures come in shuffled rounds; all else is uniform or normal."""
        streams, shape = self.streams, self.posteriors.shape
        pictures = streams.rounds("picture", step * samples, samples, len(self.ids))
        choice = torch.rand(samples, generator=streams.at("prompt", step)).tolist()
        flipped = streams.uniform("flip", step, self.posteriors.mean.shape[1], samples)
        normal = streams.normal("latent", step, (samples, *shape))
        return Draws(
            ids=self._said(pictures, choice),
            t=streams.uniform("timestep", step, self.timesteps, samples),
            z0=self.posteriors.sample(pictures, flipped, normal),
            noise=streams.normal("noise", step, (samples, *shape)),
        )

    def evaluation(self, samples: int) -> Draws:
        """The fixed batch that the concept is evaluated on: pictures, prompts, latents and noise never change.

        Timesteps are the middles of `samples` equal parts of the schedule; the pictures come in turn.
        """
        streams, shape = self.streams, self.posteriors.shape
        pictures = [i % len(self.ids) for i in range(samples)]
        choice = torch.rand(samples, generator=streams.at("evaluation prompt", 0)).tolist()
        normal = streams.normal("evaluation latent", 0, (samples, *shape))
        return Draws(
            ids=self._said(pictures, choice),
            t=(torch.arange(samples) * 2 + 1) * self.timesteps // (2 * samples),
            z0=self.posteriors.sample(pictures, torch.zeros(samples, dtype=torch.int64), normal),
            noise=streams.normal("evaluation noise", 0, (samples, *shape)),
        )

    def _said(self, pictures: Sequence[int], choice: Sequence[float]) -> Ids:
        """A prompt for each of `pictures`; `choice` from [0, 1) says which of its."""

        def chosen(encoder: str, picture: int, u: float) -> torch.Tensor:
            ids = self.ids[picture][encoder]
            return ids[int(u * len(ids))]

        return {name: torch.stack([chosen(name, p, u) for p, u in zip(pictures, choice, strict=True)]) for name in self.ids[0]}
