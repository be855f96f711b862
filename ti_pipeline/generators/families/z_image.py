"""Z-Image: one stream of a transformer for the tokens of picture and text, which hears a Qwen3 by its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.latent_model import HIDDEN, MASK
from ti_pipeline.generators.reader import Frame
from ti_pipeline.generators.refusals import check_channels, check_text_width, part_config
from ti_pipeline.generators.single_file import SingleFile, lacks_configuration
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source

PARTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
CONTEXT = 512  # tokens, those of the template among them
MODEL_INDEX = {
    "_class_name": "ZImagePipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "Qwen3Model"],
    "tokenizer": ["transformers", "Qwen2Tokenizer"],
    "transformer": ["diffusers", "ZImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


class ZImage(LatentFlow):
    """Alibaba 2025, arXiv 2511.22699. Its transformer counts time from noise (0) to picture (1) and says the way there."""

    DENOISER = ("transformer", "ZImageTransformer2DModel")
    SPOKEN = ()

    def density(self, quantiles: torch.Tensor) -> torch.Tensor:
        return quantiles

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        hidden, mask = self.encoders[ONLY].read_masked(ids[ONLY], rows[ONLY] if rows else None, layer=-2)
        return Condition({HIDDEN: hidden, MASK: mask})

    def contrasts(self, scale: float) -> bool:
        return scale > 0

    def contrasted(self, said: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
        """Its scale is one less than that of classifier-free guidance elsewhere."""
        return said + scale * (said - negative)

    def predict(self, x: torch.Tensor, t: torch.Tensor, condition: Condition) -> torch.Tensor:
        """Each sample hears its own tokens and no padding: the transformer fills up for itself, with what it has learnt for that."""
        lengths = condition.parts[MASK].sum(dim=1).tolist()
        heard = [hidden[:length].to(self.dtype) for hidden, length in zip(condition.parts[HIDDEN], lengths, strict=True)]
        time = (1000 - t.to(self.device).expand(len(x))) / 1000
        said = self.denoiser(list(x.to(self.dtype).unsqueeze(2)), time, heard).sample
        return -torch.stack(said).squeeze(2)

    def sigmas(self, steps: int) -> list[float]:
        return np.linspace(1.0, 1 / steps, steps).tolist()

    @property
    def resolution(self) -> int:
        return self.vae.config.sample_size


def _frames(tokenizer: PreTrainedTokenizerBase) -> tuple[Frame, None]:
    prompt = "\N{OBJECT REPLACEMENT CHARACTER}"
    said = [{"role": "user", "content": prompt}]
    whole = str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True, enable_thinking=True))
    before, _, after = whole.partition(prompt)
    return Frame(CONTEXT, before, after), None


def _texts() -> dict[str, Text]:
    from ti_pipeline.generators.loading import Text

    return {ONLY: Text("tokenizer", "text_encoder", "Qwen3Model", "Qwen2Tokenizer", frames=_frames)}


def _load(source: Source, settings: params.Generator) -> LatentFlow:
    from ti_pipeline.generators.loading import load_latent_model

    return load_latent_model(ZImage, _texts(), _SINGLE, source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import text_readers

    return text_readers(_texts(), source, _SINGLE)


def _configure(path: Path, folder: Path) -> None:
    raise lacks_configuration(path, "a Z-Image checkpoint without its configuration", PARTS)


_SINGLE = SingleFile(MODEL_INDEX, _configure)


def _check(folder: Path) -> None:
    transformer, vae, text = (part_config(folder, part) for part in ("transformer", "vae", "text_encoder"))
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], vae.get("latent_channels", 16))
    check_text_width(folder, transformer.get("cap_feat_dim", 2560), text.get("hidden_size", 2560))


FAMILY = Family(
    name="Z-Image",
    pipelines=frozenset({"ZImagePipeline"}),
    parts=PARTS,
    weights=("text_encoder", "transformer", "vae"),
    told=lambda shapes: False,
    check=_check,
    load=_load,
    readers=_readers,
    denoiser="ZImageTransformer2DModel",
    tables={ONLY: "text_encoder"},
)
