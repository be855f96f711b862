"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, whose last hidden states the U-Net hears."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.generators.checkpoint import denoiser_shapes, metadata, tensor_shapes
from ti_pipeline.generators.configuration import SCHEDULER, published, write_clip_tokenizer, write_parts
from ti_pipeline.generators.diffusion import UNSAID
from ti_pipeline.generators.family import Family
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.latent_diffusion import LatentDiffusion
from ti_pipeline.generators.refusals import check_channels, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from ti_pipeline import params
    from ti_pipeline.generators.reader import TextReader
    from ti_pipeline.generators.source import Source
    from ti_pipeline.model_files import Shapes

PARTS = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
TEXT = ("cond_stage_model.transformer.", "cond_stage_model.model.")  # of 1.x and 2.x
FIRST, LABELS, HEARS = "input_blocks.0.0.weight", "label_emb.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
WIDTH_OF_TWO = 1024  # of what the U-Net of 2.x hears


class StableDiffusion(LatentDiffusion):
    """Rombach et al. 2022, arXiv 2112.10752."""

    @property
    def resolution(self) -> int:
        """A single file of 2.x does not say it: those that predict v were trained at 768 pixels."""
        if self.unet.config.sample_size is None:
            return 768 if self.diffusion.prediction == "v_prediction" else 512
        return super().resolution

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        return Condition({"hidden": self.read(ONLY, ids, rows).last_hidden_state})


def single() -> SingleFile:
    """How its files are read; transformers takes a while to import, so not before it is needed."""
    from ti_pipeline.generators.stable_diffusion_1 import MODEL_INDEX

    return SingleFile(MODEL_INDEX, configure, {"text_encoder": TEXT})


def _load(source: Source, settings: params.Generator) -> LatentDiffusion:
    from ti_pipeline.generators.loading import Text, load_latent_model

    return load_latent_model(StableDiffusion, {ONLY: Text("tokenizer", "text_encoder")}, single(), source, settings)


def _readers(source: Source) -> Mapping[str, TextReader]:
    from ti_pipeline.generators.loading import Text, text_readers

    return text_readers({ONLY: Text("tokenizer", "text_encoder")}, source, single())


def configure(path: Path, folder: Path) -> None:
    """That which all 1.x share, or all 2.x."""
    from ti_pipeline.generators.stable_diffusion_1 import SCHEDULER as SCHEDULE
    from ti_pipeline.generators.stable_diffusion_1 import write_configuration

    heard, schedule = denoiser_shapes(tensor_shapes(path)).get(HEARS, ()), said_of_schedule(path)
    if not heard or heard[1] != WIDTH_OF_TWO:
        write_configuration(folder)
        write_parts({SCHEDULER: SCHEDULE | schedule}, folder)
        return
    parts = published("stable_diffusion_2")
    write_parts(parts | {SCHEDULER: parts[SCHEDULER] | {"prediction_type": UNSAID} | schedule}, folder)
    write_clip_tokenizer(folder / "tokenizer", pad="!")


def said_of_schedule(path: Path) -> dict[str, Any]:
    """What a file says of how its U-Net was trained, in its modelspec or by the empty tensors that user interfaces look for."""
    names, spec = tensor_shapes(path), metadata(path).get("modelspec.prediction_type", "")
    if "v_pred" in names or spec.startswith("v"):
        said: dict[str, Any] = {"prediction_type": "v_prediction"}
    else:
        said = {"prediction_type": spec} if spec == "epsilon" else {}
    return said | ({"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in names else {})


def _told(shapes: Shapes) -> bool:
    return FIRST in (found := denoiser_shapes(shapes)) and LABELS not in found and f"{TEXT[0]}token_emb.weight" not in shapes


def check_file(path: Path, shapes: Shapes) -> None:
    """Raises ParamsError for a U-Net that sees more than latents."""
    check_channels(path, denoiser_shapes(shapes)[FIRST][1], 4)


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
    told=_told,
    check=_check,
    check_file=check_file,
    load=_load,
    readers=_readers,
    layers=True,
    diffuses=True,
    tables={ONLY: "text_encoder"},
    loads_words=True,
)
