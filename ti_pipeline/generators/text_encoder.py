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

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A frozen text encoder and its tokenizer; `context` tokens of a prompt are read, those around it included."""

    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    context: int

    @property
    def table(self) -> torch.Tensor:
        table = self.model.get_input_embeddings()
        assert isinstance(table, torch.nn.Embedding)
        return table.weight

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int]) -> torch.Tensor:
        """Ids [batch, context], cut and padded as the tokenizer does it."""
        before, after = around(self.tokenizer)
        room = self.context - len(before) - len(after)
        rows = []
        for prompt in prompts:
            inner = inner_ids(self.tokenizer, len(self.table), prompt, lengths)[:room]
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
