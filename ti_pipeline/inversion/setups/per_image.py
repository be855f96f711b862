"""Each picture also has a word of its own (Gal et al. 2022, figure 10, "Per-image tokens")."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from ti_pipeline.inversion.setups.setup import Group, Learnable, Setup, Subject

if TYPE_CHECKING:
    from torch import Tensor

    from ti_pipeline.generators.generator import Condition, Generator, Ids


class PerImage(Setup):
    """Picture i is "a photo of S* with S_i": what only it shows may go into the vector S_i, which is dropped in the end.

    Each S_i starts as a vector that is drawn with the mean and spread of the vocabulary.
    """

    CHANGES: ClassVar[frozenset[str]] = frozenset({"prompts", "condition"})

    def begin(self, subject: Subject, one: Learnable) -> Learnable:
        import torch

        tokens = [f"<{subject.manifest.slug}:{i}>" for i in range(len(one.prompts))]  # nobody's own token has a colon
        leaves = dict(one.leaves)
        for place, (encoder, of) in enumerate(subject.generator.learning.items()):
            table = of.table.detach().float().cpu()
            noise = subject.streams.normal("per image", place, (len(tokens), table.shape[1]))
            leaves[f"{encoder}.images"] = table.mean(dim=0) + table.std(dim=0) * noise
        return replace(
            one,
            leaves=leaves,
            lengths=dict.fromkeys(tokens, 1) | dict(one.lengths),  # behind them, the word may grow
            prompts=[[f"{prompt} with {token}" for prompt in said] for token, said in zip(tokens, one.prompts, strict=True)],
            fixed={**one.fixed, "images": torch.tensor([len(tokens)])},
        )

    @staticmethod
    def condition(generator: Generator, ids: Ids, group: Group) -> Condition:
        return generator.condition(ids, {encoder: _rows(group, encoder).flatten(0, 1) for encoder in generator.learning})


def _rows(group: Group, encoder: str) -> Tensor:
    """Of each subject first those of its own pictures, then those of its word, [subjects, group.rows, d]."""
    import torch

    images, word, own = group.leaves[f"{encoder}.images"], group.leaves[encoder], group.fixed["images"]
    place = torch.arange(group.rows, device=own.device)
    place = torch.where(place < own, place, images.shape[1] + place - own).clamp(max=images.shape[1] + word.shape[1] - 1)
    return torch.cat([images, word], dim=1).gather(1, place[..., None].expand(-1, -1, word.shape[2]))
