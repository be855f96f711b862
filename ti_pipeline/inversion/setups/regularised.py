"""A word that is held near the class words that it starts from (Gal et al. 2022, figure 10, "Regularized")."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject, anchors

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.inversion.draws import Draws


class Regularised(Setup):
    """Adds weight · ‖v − v_init‖ to the loss, for each of the word's vectors v."""

    CHANGES: ClassVar[frozenset[str]] = frozenset({"anchor"})

    weight: Annotated[float, Field(gt=0)]
    """[1] Of the distance between a vector and where it started, in the loss. Raised, the word stays nearer to its initializer."""

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        return replace(one, fixed={**one.fixed, **anchors(one.leaves, subject.generator.learning)})

    def penalty(self, generator: Generator, group: Group, draws: Draws) -> Tensor | None:
        each = (group.leaves[encoder] - group.fixed[f"anchor.{encoder}"] for encoder in generator.learning)
        return self.weight * sum(away.norm(dim=-1).sum(dim=-1) for away in each)
