"""Cross Initialization (Pang et al. 2024, CVPR): a word starts from what the text encoder makes of its class words."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from ti_pipeline.errors import ConceptError
from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject, anchors

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.inversion.draws import Draws

PROMPT = "a photo of a"


class EncoderStart(Setup):
    """v_init is the text encoder's output at the class words of "a photo of a …"; weight · ‖v − v_init‖² is added to the loss, for each
    of the word's vectors v. Several text encoders have each their own."""

    CHANGES: ClassVar[frozenset[str]] = frozenset({"start", "anchor"})

    weight: Annotated[float, Field(ge=0)]
    """[1] Of the squared distance between a vector and where it started, in the loss. Raised, the word stays nearer to it."""

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        from ti_pipeline.inversion.initializer import words_in_context

        for name, encoder in subject.generator.learning.items():
            wide, table = (each.shape[-1] for each in (encoder.states(encoder.tokenise([PROMPT], {})), encoder.table))
            if wide != table:
                reason = f"encoder_start: what the text encoder {name} of {subject.generator.name} says is {wide} wide and its vectors are "
                raise ConceptError(subject.manifest.slug, f"{reason}{table}, so none can start from it. Choose another train.setup.")
        start = subject.rows(subject.train.vectors, lambda encoder, words: words_in_context(encoder, PROMPT, words))
        return replace(one, leaves={**one.leaves, **start}, fixed={**one.fixed, **anchors(start, start)})

    def penalty(self, generator: Generator, group: Group, draws: Draws) -> Tensor | None:
        import torch

        each = [group.leaves[encoder] - group.fixed[f"anchor.{encoder}"] for encoder in generator.learning]
        return self.weight * torch.stack([away.square().sum(dim=(-1, -2)) for away in each]).sum(dim=0)
