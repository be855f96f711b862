"""What families share whose only text encoder is a language model, which reads a prompt within other text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.generators.family import Family
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.single_file import SingleFile
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import Frame, TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes

PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")


@dataclass(frozen=True)
class LanguageModel:
    """What such a family leaves open: its class, its single files with the stock classes of all parts, and how its language model reads
    (`frames` and `inner` as in `loading.Text`)."""

    kind: type[LatentFlow]
    single: SingleFile
    frames: Callable[[PreTrainedTokenizerBase], tuple[Frame, Frame | None]]
    inner: str = ""

    def family(
        self, name: str, told: Callable[[Shapes], bool], check: Callable[[Path], None], check_file: Callable[[Path, Shapes], None]
    ) -> Family:
        return Family(
            name=name,
            pipelines=frozenset({self.single.index["_class_name"]}),
            parts=PARTS,
            weights=("text_encoder", "transformer", "vae"),
            told=told,
            check=check,
            check_file=check_file,
            load=self._load,
            readers=self._readers,
            denoiser=self.kind.DENOISER[1],
            density=self.kind.DENSITY,
            tables={ONLY: "text_encoder"},
        )

    def _texts(self) -> dict[str, Text]:
        from ti_pipeline.generators.loading import Text

        (_, model), (_, tokens) = self.single.index["text_encoder"], self.single.index["tokenizer"]
        return {ONLY: Text("tokenizer", "text_encoder", model, tokens, frames=self.frames, inner=self.inner)}

    def _load(self, source: Source, settings: params.Generator) -> LatentFlow:
        from ti_pipeline.generators.loading import load_latent_model

        return load_latent_model(self.kind, self._texts(), self.single, source, settings)

    def _readers(self, source: Source) -> Mapping[str, TextReader]:
        from ti_pipeline.generators.loading import text_readers

        return text_readers(self._texts(), source, self.single)


def needed(model: str) -> dict[str, str]:
    """What a person is asked to give beside a transformer, by part; `model` is what people call the language model."""
    return {
        "text_encoder": f"a .safetensors file with {model}, or its folder",
        "tokenizer": f"a folder with the vocabulary of {model} (tokenizer.json and tokenizer_config.json)",
    }
