"""How a generator reads prompts, known from its tokenizers alone: what is too long can be told before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.generators.source import Source


@dataclass(frozen=True)
class Frame:
    """What a text encoder reads of a prompt: so many tokens, of the text before and behind it too. `lower` is whether the prompt is put
    in small letters first."""

    context: int
    before: str = ""
    after: str = ""
    lower: bool = False


class TextReader(Protocol):
    """How one text encoder reads."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def width(self) -> int:
        """Numbers of a vector of its vocabulary."""


class Reader(Protocol):
    """A loaded generator is one, and so are its tokenizers without it."""

    @property
    def name(self) -> str: ...
    @property
    def learning(self) -> Mapping[str, TextReader]:
        """The text encoders that learn words, by name."""


@dataclass(frozen=True)
class TokenizerAlone:
    """A TextReader without its encoder."""

    tokenizer: PreTrainedTokenizerBase
    frame: Frame
    width: int


class TokenizersAlone:
    """The Reader of a generator that is not loaded, of which `learning` learn words. Raises what the files raise that are not there or
    not whole."""

    def __init__(self, source: Source, learning: tuple[str, ...]):
        self.name = source.name
        readers = source.family.readers(source)
        self.learning: Mapping[str, TextReader] = {name: readers[name] for name in learning}
