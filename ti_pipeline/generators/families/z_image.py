"""Z-Image: one stream of a transformer for the tokens of picture and text, which hears a Qwen3 by its chat template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ti_pipeline.generators.checkpoint import blocks, denoiser_shapes, tensor_shapes
from ti_pipeline.generators.configuration import published, write_parts
from ti_pipeline.generators.generator import Condition, Ids, Rows
from ti_pipeline.generators.language_model import LanguageModel, needed
from ti_pipeline.generators.latent_flow import LatentFlow
from ti_pipeline.generators.latent_model import CFG, HIDDEN, MASK
from ti_pipeline.generators.reader import Frame
from ti_pipeline.generators.refusals import check_channels, check_text_width, part_config, refusal
from ti_pipeline.generators.single_file import SingleFile
from ti_pipeline.words.word import ONLY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.model_files import Shapes

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

    def condition(self, ids: Ids, rows: Rows | None) -> Condition:
        hidden, mask = self.encoders[ONLY].read_masked(ids[ONLY], rows[ONLY] if rows else None, layer=-2)
        return Condition({HIDDEN: hidden, MASK: mask})

    def contrasts(self, scale: float) -> bool:
        return scale > 0

    def contrasted(self, said: torch.Tensor, negative: torch.Tensor, scale: float) -> torch.Tensor:
        """Its scale is one less than that of classifier-free guidance elsewhere."""
        return said + scale * (said - negative)

    def guidance_elsewhere(self, scale: float) -> dict[str, float]:
        return {CFG: scale + 1 if self.contrasts(scale) else 1.0}

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


def _configure(path: Path, folder: Path) -> None:
    """The schedule is Turbo's: nothing in a file tells the two models apart."""
    parts = published("z_image")
    parts["transformer"] |= transformer_config(denoiser_shapes(tensor_shapes(path)))
    write_parts(parts, folder)


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    width, head = shapes["x_embedder.weight"][0], shapes["layers.0.attention.q_norm.weight"][0]
    rows = head * 3 // 8  # of a head's numbers, how many say in which row a token is, and as many in which column
    return {
        "dim": width,
        "n_layers": blocks(shapes, "layers"),
        "n_refiner_layers": blocks(shapes, "noise_refiner"),
        "n_heads": width // head,
        "n_kv_heads": width // head,
        "cap_feat_dim": shapes["cap_embedder.0.weight"][0],
        "axes_dims": [head - 2 * rows, rows, rows],
    }


_SINGLE = SingleFile(
    MODEL_INDEX,
    _configure,
    {"text_encoder": ("text_encoders.qwen3_4b.transformer.",)},
    needed("Qwen3 4B"),
)


def _told(shapes: Shapes) -> bool:
    found = denoiser_shapes(shapes)
    return "layers.0.adaLN_modulation.0.weight" in found and "x_embedder.weight" in found


def _check_file(path: Path, shapes: Shapes) -> None:
    found = denoiser_shapes(shapes)
    if any(name.startswith("siglip_embedder.") for name in found):
        raise refusal(path, "a Z-Image Omni, which looks at pictures beside the text", "Give a Z-Image.")
    check_channels(path, found["x_embedder.weight"][1] // 4, 16)


def _check(folder: Path) -> None:
    transformer, vae, text = (part_config(folder, part) for part in ("transformer", "vae", "text_encoder"))
    if "in_channels" in transformer:
        check_channels(folder, transformer["in_channels"], vae.get("latent_channels", 16))
    check_text_width(folder, transformer.get("cap_feat_dim", 2560), text.get("hidden_size", 2560))


FAMILY = LanguageModel(ZImage, _SINGLE, _frames).family("Z-Image", _told, _check, _check_file)
