"""Textual inversion (Gal et al. 2022, arXiv 2208.01618)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Condition, Generator, Ids
    from ti_pipeline.words.word import Word


class Plain(Setup):
    """v* = argmin_v E ‖ε − ε_θ(z_t, t, c_θ(y))‖² (eq. 2): `train.vectors` rows in the table of each text encoder, and nothing else."""

    def decisive(self) -> dict[str, Any]:
        """Nothing by plain itself: words that were learnt when there was no other setup stand."""
        return {} if type(self) is Plain else super().decisive()

    def begin(self, subject: Subject) -> Learnable:
        vectors = subject.train.vectors
        return Learnable(subject.rows(vectors), {subject.manifest.token: vectors}, subject.prompts)

    @staticmethod
    def condition(generator: Generator, ids: Ids, group: Group) -> Condition:
        return generator.condition(ids, {encoder: rows.flatten(0, 1) for encoder, rows in group.leaves.items()})

    def word(self, subject: Subject, leaves: Mapping[str, Tensor]) -> Word:
        from ti_pipeline.words.word import Word

        return Word(subject.manifest.token, dict(leaves), class_words=subject.initializer)
