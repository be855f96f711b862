"""A first phase without the denoiser: the word that a CLIP finds most like the pictures (as ethansmith2000/QuickEmbedding has it)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from ti_pipeline.inversion.setups.setup import Learnable, Setup, Subject
from ti_pipeline.section import Positive


class ClipStart(Setup):
    """v_init = argmax_v E cos(CLIP(picture), CLIP(prompt with v)), over the concept's pictures and what is said of them.

    It is learnt in the table of the ranker's text encoder. A generator with another table of the same vocabulary has its initializer's
    vectors moved by what the linear map between the two tables makes of the movement there.
    """

    CHANGES: ClassVar[frozenset[str]] = frozenset({"start"})
    LOOKS: ClassVar[bool] = True

    steps: Positive
    """[steps] Of the first phase, each with 16 prompts. Raised, the start is more like what the ranker sees in the pictures."""
    learning_rate: Annotated[float, Field(gt=0)]
    """[1] Of the first phase's Adam, falling to zero along a cosine. Raised, the start moves further from the initializer."""

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        from ti_pipeline.inversion.matching import carried, match

        found = match(subject, self.steps, self.learning_rate)
        return replace(one, leaves={**one.leaves, **carried(subject, found, one.leaves)})
