"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, whose last hidden states the U-Net hears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.generators.checkpoint import tensor_shapes
from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_diffusion import LatentDiffusion
from ti_pipeline.generators.refusals import check_channels, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile, lacks_configuration
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source

PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
_OPEN_CLIP = "cond_stage_model.model.token_embedding.weight"  # the text encoder of 2.x


class StableDiffusion(LatentDiffusion):
    """Rombach et al. 2022, arXiv 2112.10752."""

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        return Condition({"hidden": self.read(ONLY, ids, rows).last_hidden_state})


def _load(source: Source, settings: params.Generator) -> LatentDiffusion:
    from ti_pipeline.generators.loading import Text, load_latent_model
    from ti_pipeline.generators.stable_diffusion_1 import MODEL_INDEX

    texts, single = {ONLY: Text("tokenizer", "text_encoder")}, SingleFile(MODEL_INDEX, configure)
    return load_latent_model(StableDiffusion, texts, single, source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import Text, text_readers
    from ti_pipeline.generators.reader import Frame, TokenizerAlone
    from ti_pipeline.generators.stable_diffusion_1 import CONTEXT, clip_tokenizer

    if source.layout == "file" and not source.path.with_suffix("").is_dir():
        return {ONLY: TokenizerAlone(clip_tokenizer(), Frame(CONTEXT))}
    return text_readers({ONLY: Text("tokenizer", "text_encoder")}, source)


def configure(path: Path, folder: Path) -> None:
    """A 1.x file has the configuration that all of them share; a 2.x file does not even say whether it predicts epsilon or v."""
    from ti_pipeline.generators.stable_diffusion_1 import write_configuration

    if _OPEN_CLIP in tensor_shapes(path):
        what = "a Stable Diffusion 2.x checkpoint, which does not say whether it predicts epsilon or v"
        raise lacks_configuration(path, what, PARTS)
    write_configuration(folder)


def _check(folder: Path) -> None:
    unet, vae, text = (part_config(folder, part) for part in ("unet", "vae", "text_encoder"))
    if unet.get("addition_embed_type") == "text_time":
        raise refusal(folder, "put together from two models: its U-Net is another family's", "Download the whole model again.")
    if "in_channels" in unet:
        check_channels(folder, unet["in_channels"], vae.get("latent_channels", 4))
    heard, said = unet.get("cross_attention_dim"), text.get("hidden_size")
    if isinstance(heard, int) and isinstance(said, int) and heard != said:
        raise refusal(
            folder,
            f"put together from two models: its U-Net hears texts of width {heard}, and its text encoder's are {said} wide",
            "Download the whole model again.",
        )


FAMILY = Family(
    name="Stable Diffusion 1.x or 2.x",
    pipelines=frozenset({"StableDiffusionPipeline"}),
    parts=PARTS,
    weights=("text_encoder", "unet", "vae"),
    text="cond_stage_model.",
    check=_check,
    load=_load,
    readers=_readers,
    layers=True,
    diffuses=True,
    tables={ONLY: "text_encoder"},
    loads_words=True,
)
