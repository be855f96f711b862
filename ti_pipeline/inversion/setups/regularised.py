"""A word that is held near the class words that it starts from (Gal et al. 2022, figure 10, "Regularized")."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ti_pipeline.inversion.setups.plain import Plain
from ti_pipeline.inversion.setups.setup import Group, Learnable, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Generator


class Regularised(Plain):
    """Adds weight · ‖v − v_init‖ to the loss, for each of the word's vectors v."""

    weight: Annotated[float, Field(gt=0)]
    """[1] Of the distance between a vector and where it started, in the loss. Raised, the word stays nearer to its initializer."""

    def begin(self, subject: Subject) -> Learnable:
        one = super().begin(subject)
        return replace(one, fixed=one.leaves)

    def penalty(self, generator: Generator, group: Group) -> Tensor | None:
        return self.weight * sum((v - group.fixed[encoder]).norm(dim=-1).sum(dim=-1) for encoder, v in group.leaves.items())
