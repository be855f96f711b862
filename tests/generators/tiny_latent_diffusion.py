"""The paper's latent diffusion with its real configuration, small widths, a small vocabulary and random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from transformers import BertTokenizer

from tests.generators.tiny_stable_diffusion import UNET, VAE
from ti_pipeline.generators import stable_diffusion_1 as sd1
from ti_pipeline.generators.families.latent_diffusion_text import MODEL_INDEX

WIDTH = 32
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = (
    "a an the of on in with and photo picture rendering rendition good clean dirty dark cool bright close up cropped nice small weird large"
)
WORDS += " my one is red blue cat dog mug moon beach toy ##s ##ing . , - < >"


def write_folder(folder: Path) -> Path:
    """A diffusers folder as the published one is, with weights."""
    letters = [chr(ord("a") + i) for i in range(26)]
    pieces = [*PIECES, *WORDS.split(), *letters, *(f"##{letter}" for letter in letters)]
    files = {
        "model_index.json": MODEL_INDEX,
        "scheduler/scheduler_config.json": sd1.SCHEDULER,
        "unet/config.json": sd1.UNET | UNET | {"cross_attention_dim": WIDTH},
        "vqvae/config.json": sd1.VAE | VAE,
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(value), encoding="utf-8")
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("\n".join(dict.fromkeys(pieces)), encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary), model_max_length=77).save_pretrained(folder / "tokenizer")
    vocabulary.unlink()
    torch.manual_seed(8)
    small = {"encoder_layers": 2, "encoder_ffn_dim": 64, "encoder_attention_heads": 2, "head_dim": 16, "d_model": WIDTH}
    LDMBertModel(LDMBertConfig(vocab_size=len(set(pieces)), max_position_embeddings=77, **small)).save_pretrained(folder / "bert")
    for part, model in (("unet", UNet2DConditionModel), ("vqvae", AutoencoderKL)):
        model.from_config(model.load_config(folder / part)).save_pretrained(folder / part)
    return folder
