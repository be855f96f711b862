"""One concept in training: what it draws at each step, from its own streams only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from ti_pipeline.generators.generator import Generator, Ids
from ti_pipeline.inversion.draws import Draws
from ti_pipeline.inversion.latents import Posteriors
from ti_pipeline.inversion.objective import Objective
from ti_pipeline.inversion.streams import Streams


@dataclass(frozen=True)
class Learner:
    """A concept's posteriors and, for each picture, the ids [prompts, context] of what can be said about it, by text encoder.

    `timesteps` are the generator's; `lengths` are the rows of each token in what can be said, `instead` what text encoders that do not
    learn read in its place; `objective` is how the loss is weighted.
    """

    streams: Streams
    timesteps: int
    posteriors: Posteriors
    ids: tuple[Ids, ...]
    lengths: Mapping[str, int] = field(default_factory=dict)
    instead: str = ""
    objective: Objective = Objective()

    def saying(self, generator: Generator, prompts: Sequence[Sequence[str]], lengths: Mapping[str, int]) -> Learner:
        """With `prompts` for each picture, in which each token stands for as many rows as `lengths` say."""
        return replace(self, ids=tuple(generator.tokenise(each, lengths, self.instead) for each in prompts), lengths=lengths)

    def draw(self, step: int, samples: int) -> Draws:
        """The draws of step `step` (from 0). Pictures come in shuffled rounds; all else is uniform or normal."""
        streams = self.streams
        pictures = streams.rounds("picture", step * samples, samples, len(self.ids))
        choice = torch.rand(samples, generator=streams.at("prompt", step)).tolist()
        flipped = streams.uniform("flip", step, self.posteriors.flips, samples)
        return self._drawn("", step, (pictures, choice, flipped), streams.uniform("timestep", step, self.timesteps, samples))

    def evaluation(self, samples: int) -> Draws:
        """The fixed batch that the concept is evaluated on: pictures, prompts, latents and noise never change.

        Timesteps are the middles of `samples` equal parts of the schedule; the pictures come in turn.
        """
        pictures = [i % len(self.ids) for i in range(samples)]
        choice = torch.rand(samples, generator=self.streams.at("evaluation prompt", 0)).tolist()
        flipped = torch.zeros(samples, dtype=torch.int64)
        t = (torch.arange(samples) * 2 + 1) * self.timesteps // (2 * samples)
        return self._drawn("evaluation ", 0, (pictures, choice, flipped), t)

    def _drawn(self, what: str, counter: int, which: tuple[Sequence[int], Sequence[float], torch.Tensor], t: torch.Tensor) -> Draws:
        """`which` are pictures, what is said of each, and whether it is mirrored; all else comes from the streams of `what`."""
        (pictures, choice, flipped), posteriors, streams = which, self.posteriors, self.streams
        shape = (len(t), *posteriors.shape)
        noise = streams.normal(f"{what}noise", counter, shape)
        if self.objective.offset:
            noise = noise + self.objective.offset * streams.normal(f"{what}offset", counter, (*shape[:2], 1, 1))
        return Draws(
            ids=self._said(pictures, choice),
            t=t,
            z0=posteriors.sample(pictures, flipped, streams.normal(f"{what}latent", counter, shape)),
            noise=noise,
            weight=self.objective.weight(t, posteriors.weights(pictures, flipped)),
            extents=posteriors.extents(pictures),
        )

    def _said(self, pictures: Sequence[int], choice: Sequence[float]) -> Ids:
        """A prompt for each of `pictures`; `choice` from [0, 1) says which of its."""

        def chosen(encoder: str, picture: int, u: float) -> torch.Tensor:
            ids = self.ids[picture][encoder]
            return ids[int(u * len(ids))]

        return {name: torch.stack([chosen(name, p, u) for p, u in zip(pictures, choice, strict=True)]) for name in self.ids[0]}
