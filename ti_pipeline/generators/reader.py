"""How a generator reads prompts, known from its tokenizer alone: what is too long can be told before any weight is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from ti_pipeline.generators.source import Source

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


class Reader(Protocol):
    """A loaded generator is one, and so is its tokenizer with `context`, the tokens that it reads, start and end included."""

    @property
    def name(self) -> str: ...
    @property
    def tokenizer(self) -> CLIPTokenizer: ...
    @property
    def context(self) -> int: ...


class TokenizerAlone:
    """The Reader of a generator that is not loaded. Raises what the files raise that are not there or not whole."""

    def __init__(self, source: Source):
        from transformers import CLIPTokenizer

        self.name = source.name
        folder = source.path if source.layout == "folder" else source.path.with_suffix("")
        if folder.is_dir():
            self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
            positions = json.loads((folder / "text_encoder" / "config.json").read_text(encoding="utf-8"))["max_position_embeddings"]
        else:
            from ti_pipeline.generators.stable_diffusion_1 import CONTEXT, clip_tokenizer

            self.tokenizer, positions = clip_tokenizer(), CONTEXT
        self.context = min(self.tokenizer.model_max_length, positions)
