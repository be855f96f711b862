"""Directional textual inversion (arXiv 2512.13672): a vector's length is that of ordinary words, and only its direction is learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ti_pipeline.inversion.setups.setup import Group, Learnable, Moments, Setup, Step, Subject

if TYPE_CHECKING:
    from torch import Tensor

BETA, EPSILON = 0.99, 1e-6  # of the running mean square of the gradient's norm; the paper's


class Direction(Setup):
    """A vector is m · v: m is `norm` times the mean norm of the encoder's vocabulary, v of length 1 is moved along the sphere.

    v ← normalised(v − η · h / rms‖h‖), where h is the gradient of the loss − κ · μᵀv, without its part along v; μ is the direction that
    v starts from. There is no weight decay.
    """

    CHANGES: ClassVar[frozenset[str]] = frozenset({"update", "anchor"})

    norm: Annotated[float, Field(gt=0)]
    """[mean norms] Of every vector, in those of the vocabulary (1 in the paper). 2 is the norm of the words that the miniature knows: three
    quarters of its vocabulary are pieces that it has never read. Raised, the word weighs more in a prompt."""
    kappa: Annotated[float, Field(ge=0)]
    """[1] Weight of the likeness to where a vector started, in the loss (0.0001 in the paper). Raised, the word stays nearer to it."""

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        from torch.nn.functional import normalize

        leaves, fixed = dict(one.leaves), dict(one.fixed)
        for encoder, of in subject.generator.learning.items():
            length = self.norm * of.table.detach().float().norm(dim=-1).mean().cpu()
            for name, rows in one.leaves.items():
                if name.partition(".")[0] == encoder:
                    start = normalize(rows, dim=-1)
                    leaves[name], fixed[f"anchor.{name}"] = length * start, self.kappa * start
        return replace(one, leaves=leaves, fixed=fixed)

    @staticmethod
    def update(group: Group, gradient: Mapping[str, Tensor], moments: Moments, step: Step) -> None:
        from torch.nn.functional import normalize  # which gives 0 for 0, where a shorter word has nothing

        from ti_pipeline.inversion.adamw import adamw, for_each

        for name, leaf in group.leaves.items():
            if f"anchor.{name}" not in group.fixed:
                adamw(leaf, gradient[name], moments.first[name], moments.second[name], step)
                continue
            length, v = leaf.norm(dim=-1, keepdim=True), normalize(leaf, dim=-1)
            h = length * gradient[name] - group.fixed[f"anchor.{name}"]
            h -= (h * v).sum(dim=-1, keepdim=True) * v
            square = moments.second[name].lerp_(h.square().sum(dim=-1, keepdim=True).expand_as(leaf), 1 - BETA)
            size = (square / for_each(1 - BETA**step.count, leaf)).sqrt().clamp(min=EPSILON)
            leaf.copy_(length * normalize(v - for_each(step.rate, leaf) * h / size, dim=-1))
