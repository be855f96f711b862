"""A CLIP text encoder with learnt rows behind its vocabulary, without touching the tokenizer or the table.

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

from ti_pipeline.generators.placeholder import inner_ids

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """A frozen CLIP text encoder and its tokenizer."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel | CLIPTextModelWithProjection

    @property
    def context(self) -> int:
        return min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings)

    @property
    def table(self) -> torch.Tensor:
        table = self.model.get_input_embeddings()
        assert isinstance(table, torch.nn.Embedding)
        return table.weight

    def tokenise(self, prompts: Sequence[str], lengths: Mapping[str, int]) -> torch.Tensor:
        """Ids [batch, context], cut and padded as the tokenizer does it."""
        tokenizer, room = self.tokenizer, self.context - 2
        rows = []
        for prompt in prompts:
            inner = inner_ids(tokenizer, len(self.table), prompt, lengths)[:room]
            padding = [tokenizer.pad_token_id] * (room - len(inner))
            rows.append([tokenizer.bos_token_id, *inner, tokenizer.eos_token_id, *padding])
        return torch.tensor(rows)

    def read(self, ids: torch.Tensor, rows: torch.Tensor | None, *, every_layer: bool = False) -> Any:
        """The model's output for ids [batch, context]; `rows` [r, d] are the vectors behind the table, and gradients flow to them."""
        ids = ids.to(self.table.device)
        outside = ids >= len(self.table)
        mask = _attention_mask(ids, self.tokenizer.eos_token_id) if getattr(self.model.config, "use_attention_mask", False) else None
        more = {"output_hidden_states": True} if every_layer else {}
        with self._put(ids, rows):
            return self.model(ids.masked_fill(outside, 0), attention_mask=mask, **more)

    @contextmanager
    def _put(self, ids: torch.Tensor, rows: torch.Tensor | None) -> Iterator[None]:
        if rows is None:
            yield
            return
        words = len(self.table)

        def replace(module: torch.nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
            learnt = F.embedding((ids - words).clamp(min=0), rows.to(ids.device)).to(output.dtype)
            return torch.where((ids >= words)[..., None], learnt, output)

        hook = self.model.get_input_embeddings().register_forward_hook(replace)
        try:
            yield
        finally:
            hook.remove()


def _attention_mask(ids: torch.Tensor, end: int) -> torch.Tensor:
    """Ones up to and with the first end token."""
    return ((ids == end).cumsum(dim=1) - (ids == end).int() == 0).long()
