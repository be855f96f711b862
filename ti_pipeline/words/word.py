"""A word: what training learns, files carry and prompts name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ONLY = "text"  # the text encoder of a model that has one: files of its words do not name it
ENCODERS = ("clip_l", "clip_g", "t5")  # those of a model that has several, in the order in which tools number them
ADAPTER = "adapter."  # begins the names of tensors beside the rows in a word's file
_LAYERS = "layers."  # begins the name of the adapter with an encoder's rows for each layer


@dataclass(frozen=True)
class Word:
    """A learnt word.

    `rows` {text encoder: float32 [n, d]}: in a prompt the token stands for n rows in each of them. `class_words` stand for the token
    where a text is read without it. `adapters` are tensors beside the rows, by name, where the setup has some. `provenance` is what
    its file says about where it comes from; `digest` is the file's SHA-256, empty for a word that was not read from one.
    """

    token: str
    rows: Mapping[str, torch.Tensor] = field(repr=False)
    class_words: str = ""
    adapters: Mapping[str, torch.Tensor] = field(default_factory=dict, repr=False)
    provenance: Mapping[str, str] = field(default_factory=dict, repr=False)
    digest: str = ""

    def __len__(self) -> int:
        """Rows that the token stands for in a prompt, n."""
        return max(len(rows) for rows in self.rows.values())

    @classmethod
    def layered(cls, token: str, layers: Mapping[str, torch.Tensor], class_words: str = "") -> Word:
        """One that tells each cross-attention layer of a denoiser its own: `layers` {text encoder: float32 [layers, n, d]}.

        Its rows, for all who know of no layers, are the mean.
        """
        adapters = {f"{_LAYERS}{encoder}": rows for encoder, rows in layers.items()}
        return cls(token, {encoder: rows.mean(dim=0) for encoder, rows in layers.items()}, class_words, adapters)

    @property
    def layers(self) -> dict[str, torch.Tensor]:
        """The rows for each layer, as `layered` takes them; empty for a word that tells all layers the same."""
        return {name.removeprefix(_LAYERS): rows for name, rows in self.adapters.items() if name.startswith(_LAYERS)}
