"""How a generator reads prompts, known from its tokenizers alone: what is too long can be told before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.generators.source import Source


class TextReader(Protocol):
    """How one text encoder reads: its tokenizer, and how many tokens it takes, start and end included."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def context(self) -> int: ...


class Reader(Protocol):
    """A loaded generator is one, and so are its tokenizers without it. `context` tokens are read by each of its text encoders."""

    @property
    def name(self) -> str: ...
    @property
    def encoders(self) -> Mapping[str, TextReader]: ...
    @property
    def context(self) -> int: ...


@dataclass(frozen=True)
class TokenizerAlone:
    """A TextReader without its encoder."""

    tokenizer: PreTrainedTokenizerBase
    context: int


class TokenizersAlone:
    """The Reader of a generator that is not loaded. Raises what the files raise that are not there or not whole."""

    def __init__(self, source: Source):
        self.name = source.name
        self.encoders: Mapping[str, TextReader] = source.family.readers(source)
        self.context = min(encoder.context for encoder in self.encoders.values())
