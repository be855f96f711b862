"""A text encoder with learnt rows behind its vocabulary, without touching the tokenizer or the table.

Ids behind the table never reach it: they are looked up as id 0 and replaced by their rows in a forward hook, which is also where
the gradient comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from ti_pipeline.generators.placeholder import around, inner_ids
from ti_pipeline.generators.reader import Frame

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


WHOLE = 32  # masked prompts are as long as a multiple of it: few shapes, and about equal prompts have the same arithmetic


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A frozen text encoder and its tokenizer. Prompts stand in `frame`, those to steer away from in `negative` where that is another."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    frame: Frame
    negative: Frame | None = None

    @property
    def table(self) -> torch.Tensor:
        table = self.model.get_input_embeddings()
        assert isinstance(table, torch.nn.Embedding)
        return table.weight

    @property
    def width(self) -> int:
        return self.table.shape[1]

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int], *, negative: bool = False) -> torch.Tensor:
        """Ids [batch, context], cut and padded as the tokenizer does it."""
        frame = (self.negative if negative else None) or self.frame
        before, after = around(self.tokenizer)
        room = frame.context - len(before) - len(after)
        rows = []
        for prompt in prompts:
            inner = inner_ids(self.tokenizer, len(self.table), prompt, lengths, frame)[:room]
            rows.append([*before, *inner, *after, *[self.tokenizer.pad_token_id] * (room - len(inner))])
        return torch.tensor(rows)

    def read(self, ids: torch.Tensor, rows: torch.Tensor | None, *, every_layer: bool = False) -> Any:
        """The model's output for ids [batch, context]; `rows` [r, d] are the vectors behind the table, and gradients flow to them."""
        ids = ids.to(self.table.device)
        outside = ids >= len(self.table)
        more: dict[str, Any] = {"output_hidden_states": True} if every_layer else {}
        if getattr(self.model.config, "use_attention_mask", False):
            more["attention_mask"] = _attention_mask(ids, self.tokenizer.eos_token_id)
        with self._put(ids, rows):
            return self.model(ids.masked_fill(outside, 0), **more)

    def read_masked(self, ids: torch.Tensor, rows: torch.Tensor | None, layer: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [batch, n, d] of a layer, by default the last after its norm, and where there are tokens, bool [batch, n].

        Padding is not attended to. `n` is little more than the longest prompt has: a language model reads hundreds of tokens.
        """
        ids = ids.to(self.table.device)
        there = (ids != self.tokenizer.pad_token_id).flip(1).cumsum(dim=1).flip(1) > 0
        longest = -(-int(there.sum(dim=1).max()) // WHOLE) * WHOLE
        ids, there = ids[:, :longest], there[:, :longest]
        with self._put(ids, rows):
            said = self.model(
                ids.masked_fill(ids >= len(self.table), 0), attention_mask=there.long(), output_hidden_states=layer is not None
            )
        return said.last_hidden_state if layer is None else said.hidden_states[layer], there

    def states(self, ids: torch.Tensor) -> torch.Tensor:
        """The last hidden states of ids [batch, context], after the final norm."""
        return self.read(ids, None).last_hidden_state

    @contextmanager
    def _put(self, ids: torch.Tensor, rows: torch.Tensor | None) -> Iterator[None]:
        if rows is None:
            yield
            return
        words = len(self.table)

        def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
            here = ids.to(output.device)  # where the encoder has come to
            learnt = F.embedding((here - words).clamp(min=0), rows.to(here.device)).to(output.dtype)
            if (scale := getattr(module, "embed_scale", None)) is not None:  # Gemma's, on the way out of the table
                learnt = learnt * scale.to(output)
            return torch.where((here >= words)[..., None], learnt, output)

        hooks = [module.register_forward_hook(replace) for module in self._lookups()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _lookups(self) -> Iterator[torch.nn.Embedding]:
        """Where the table is looked up: a T5 has it under two names, and asks the one that `get_input_embeddings` does not give."""
        for module in self.model.modules():
            if isinstance(module, torch.nn.Embedding) and module.weight is self.table:
                yield module


def _attention_mask(ids: torch.Tensor, end: int) -> torch.Tensor:
    """Ones up to and with the first end token."""
    return ((ids == end).cumsum(dim=1) - (ids == end).int() == 0).long()
