"""A vector for each cross-attention layer (Voynov et al. 2023, "P+", arXiv 2303.09522: Extended Textual Inversion)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject, anchors

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Condition, Generator, Ids
    from ti_pipeline.words.word import Word


class Layered(Setup):
    """Each cross-attention layer of the U-Net hears a word of its own: argmin E ‖ε − ε_θ(z_t, t, c_θ(y, v_1), …, c_θ(y, v_L))‖² over
    v_1 … v_L, which all start where a plain word starts.

    Leaves have L rows, one after the other, for each row of a plain word. A prompt is read once for each layer, in one pass of the
    text encoder.
    """

    CHANGES: ClassVar[frozenset[str]] = frozenset({"condition"})

    @property
    def needs_layers(self) -> bool:
        return True

    def rows(self, generator: Generator, count: int) -> int:
        return count * generator.layers

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        """What rows are held near to is there for each layer too. A word that goes on from one with as many vectors for each layer goes
        on from these."""
        layers, encoders = subject.generator.layers, subject.generator.learning
        rows = {name: one.leaves[name].repeat_interleave(layers, dim=0) for name in encoders}
        for name, each in subject.start.layers.items() if subject.start else ():
            if each.shape[1] == len(one.leaves[name]):
                rows[name] = each.movedim(0, 1).flatten(0, 1)
        held = {name: one.fixed[name].repeat_interleave(layers, dim=0) for name in anchors(rows, encoders) if name in one.fixed}
        return replace(one, leaves={**one.leaves, **rows}, fixed={**one.fixed, **held})

    @staticmethod
    def condition(generator: Generator, ids: Ids, group: Group) -> Condition:
        """The prompts are repeated for each layer, and their ids point at that layer's rows: those of all subjects stand together. A text
        encoder that does not learn reads the same for each."""
        import torch

        layers, said, rows = generator.layers, {}, {}
        for encoder, of in ids.items():
            if encoder not in generator.learning:
                said[encoder] = of.repeat(layers, 1)
                continue
            each = group.leaves[encoder].unflatten(1, (-1, layers)).movedim(2, 0)  # [layers, subjects, rows, d]
            rows[encoder] = each.flatten(0, 2)
            shift = torch.arange(layers, device=of.device).repeat_interleave(len(of)) * (each.shape[1] * each.shape[2])
            repeated = of.repeat(layers, 1)
            said[encoder] = torch.where(repeated >= len(generator.encoders[encoder].table), repeated + shift[:, None], repeated)
        heard = generator.condition(said, rows)
        prompts = len(heard) // layers
        return generator.layered([heard[i * prompts : (i + 1) * prompts] for i in range(layers)])

    def after(self, subject: Subject, one: Learnable, step: int) -> Learnable:
        """A row that has joined is there for each layer."""
        import torch

        layers, grown = subject.generator.layers, {}
        for encoder in subject.generator.learning:
            rows = one.leaves[encoder]
            if new := len(rows) % layers:
                grown[encoder] = torch.cat([rows[:-new], rows[-new:].repeat_interleave(layers, dim=0)])
        return replace(one, leaves={**one.leaves, **grown}) if grown else one

    def word(self, subject: Subject, word: Word, leaves: Mapping[str, Tensor]) -> Word:
        from ti_pipeline.words.word import Word

        layers = subject.generator.layers
        each = {encoder: rows.unflatten(0, (-1, layers)).movedim(1, 0).contiguous() for encoder, rows in word.rows.items()}
        return Word.layered(word.token, each, word.class_words)
