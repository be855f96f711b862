"""A word that grows while it is learnt (Gal et al. 2022, figure 10, "Progressive")."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ti_pipeline.concepts.texts import MOST_VECTORS
from ti_pipeline.inversion.setups.setup import Learnable, Setup, Subject

if TYPE_CHECKING:
    from ti_pipeline.params import Train

Steps = Annotated[int, Field(ge=1)]


class Progressive(Setup):
    """Starts with one vector. After each of `grow_at` steps another joins, where one of a word of that length would start."""

    CHANGES: ClassVar[frozenset[str]] = frozenset({"length", "anchor"})

    grow_at: Annotated[tuple[Steps, ...], Field(min_length=1, max_length=MOST_VECTORS - 1)]
    """[steps] After each of these a further vector joins (2,000 and 4,000 of 5,000 in the paper). For `train.vectors: 1`."""

    def check(self, train: Train) -> None:
        if train.vectors != 1:
            raise ValueError(f"a progressive word starts with one vector, and `vectors` is {train.vectors}. Set it to 1.")
        if any(later <= sooner for sooner, later in pairwise(self.grow_at)):
            raise ValueError(f"train.setups.progressive.grow_at: {list(self.grow_at)} does not rise. Put the steps in order, each once.")
        if self.grow_at[-1] >= train.steps:
            raise ValueError(
                f"train.setups.progressive.grow_at: a vector that joins after step {self.grow_at[-1]} of {train.steps} would learn "
                "nothing. Let it join sooner, or raise `steps`."
            )

    def longest(self, train: Train) -> int:
        return 1 + len(self.grow_at)

    def after(self, subject: Subject, one: Learnable, step: int) -> Learnable:
        if step not in self.grow_at:
            return one
        import torch

        token, length = subject.manifest.token, 2 + self.grow_at.index(step)
        grown = {
            encoder: torch.cat([one.leaves[encoder], start[-1:].to(one.leaves[encoder].device)])
            for encoder, start in subject.rows(length).items()
        }
        return replace(one, leaves={**one.leaves, **grown}, lengths={**one.lengths, token: length})
