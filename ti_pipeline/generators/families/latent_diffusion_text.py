"""The paper's own generator: latent diffusion at 256 pixels under a BERT that was trained with it (Rombach et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ti_pipeline.generators.checkpoint import denoiser_shapes
from ti_pipeline.generators.configuration import published, write_parts
from ti_pipeline.generators.families.stable_diffusion import FIRST, check_file
from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_diffusion import LatentDiffusion
from ti_pipeline.generators.refusals import check_channels, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.loading import Text
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes

PARTS = ("bert", "scheduler", "tokenizer", "unet", "vqvae")
TEXT = "cond_stage_model.transformer."
CONTEXT = 77  # tokens that the stock pipeline reads
MODEL_INDEX = {
    "_class_name": "LDMTextToImagePipeline",
    "bert": ["latent_diffusion", "LDMBertModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "tokenizer": ["transformers", "BertTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vqvae": ["diffusers", "AutoencoderKL"],
}
VOCABULARY = "a folder with the vocabulary of BERT, uncased (vocab.txt and tokenizer_config.json)"
SINGLE = SingleFile(
    MODEL_INDEX,
    lambda path, folder: write_parts(published("latent_diffusion_text"), folder),
    {"bert": (TEXT,)},
    {"tokenizer": VOCABULARY},
)


class LatentDiffusionText(LatentDiffusion):
    """The U-Net hears the BERT's last hidden states."""

    VAE = ("vqvae", "AutoencoderKL")

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        return Condition({"hidden": self.read(ONLY, ids, rows).last_hidden_state})

    def contrasts(self, scale: float) -> bool:
        return scale != 1


def _texts() -> dict[str, Text]:
    from ti_pipeline.generators.loading import Text

    return {ONLY: Text("tokenizer", "bert", "LDMBertModel", "BertTokenizer", CONTEXT)}


def _load(source: Source, settings: params.Generator) -> LatentDiffusion:
    from ti_pipeline.generators.loading import load_latent_model

    return load_latent_model(LatentDiffusionText, _texts(), SINGLE, source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import text_readers

    return text_readers(_texts(), source, SINGLE)


def _told(shapes: Shapes) -> bool:
    return f"{TEXT}token_emb.weight" in shapes and FIRST in denoiser_shapes(shapes)


def _check(folder: Path) -> None:
    unet, vae, text = (part_config(folder, part) for part in ("unet", "vqvae", "bert"))
    if vae.get("_class_name", "AutoencoderKL") != "AutoencoderKL":
        what = f"a latent diffusion whose latents are those of a {vae['_class_name']}"
        raise refusal(folder, what, "Give the one for text whose VAE is an AutoencoderKL (ldm-text2im-large-256).")
    if "in_channels" in unet:
        check_channels(folder, unet["in_channels"], vae.get("latent_channels", 4))
    heard, said = unet.get("cross_attention_dim"), text.get("d_model")
    if isinstance(heard, int) and isinstance(said, int) and heard != said:
        what = f"put together from two models: its U-Net hears texts of width {heard}, and its BERT's are {said} wide"
        raise refusal(folder, what, "Download the whole model again.")


FAMILY = Family(
    name="latent diffusion",
    pipelines=frozenset({"LDMTextToImagePipeline"}),
    parts=PARTS,
    weights=("bert", "unet", "vqvae"),
    told=_told,
    check=_check,
    check_file=check_file,
    load=_load,
    readers=_readers,
    layers=True,
    diffuses=True,
    tables={ONLY: "bert"},
)
