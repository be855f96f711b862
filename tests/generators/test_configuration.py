"""The configurations that ship, at full width without a weight."""

from __future__ import annotations

from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel
from safetensors.torch import save_file
from torch import nn

from tests.generators import original
from tests.generators.tiny_stable_diffusion import generator_settings
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.configuration import published, write_clip_tokenizer
from ti_pipeline.generators.diffusion import Diffusion
from ti_pipeline.generators.families import flux, qwen_image, sana, stable_diffusion, stable_diffusion_3, z_image
from ti_pipeline.generators.single_file import configured
from ti_pipeline.generators.source import find_source

T5 = 4_762_310_656  # the encoder of T5 v1.1 XXL
CLIP_L, CLIP_G, VAE, VAE_16 = 123_060_480, 694_659_840, 83_653_863, 83_819_683
SIZES = {
    ("latent_diffusion_text", "unet"): 872_300_484,
    ("latent_diffusion_text", "bert"): 581_994_042,  # with its head for words; both together the 1.45 billion of the paper
    ("latent_diffusion_text", "vqvae"): VAE,
    ("stable_diffusion_2", "unet"): 865_910_724,
    ("stable_diffusion_2", "text_encoder"): 340_387_840,
    ("stable_diffusion_2", "vae"): VAE,
    ("stable_diffusion_xl", "unet"): 2_567_463_684,
    ("stable_diffusion_xl", "text_encoder"): CLIP_L,
    ("stable_diffusion_xl", "text_encoder_2"): CLIP_G,
    ("stable_diffusion_xl", "vae"): VAE,
    ("stable_diffusion_3", "transformer"): 2_028_328_000,
    ("stable_diffusion_3", "text_encoder"): CLIP_L + 768**2,
    ("stable_diffusion_3", "text_encoder_2"): CLIP_G,
    ("stable_diffusion_3", "text_encoder_3"): T5,
    ("stable_diffusion_3", "vae"): VAE_16,
    ("flux", "transformer"): 11_901_408_320,
    ("flux", "text_encoder"): CLIP_L,
    ("flux", "text_encoder_2"): T5,
    ("flux", "vae"): VAE_16,
    ("sana", "text_encoder"): 2_024_517_888 + 256_000 * 2304,  # without and with its vocabulary (Gemma 2, table 2)
    ("z_image", "transformer"): 6_154_908_736,
    ("z_image", "text_encoder"): 4_022_468_096,
    ("z_image", "vae"): VAE_16,
    ("qwen_image", "transformer"): 20_430_401_088,
}
SD35_LARGE = {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432, "qk_norm": "rms_norm"}
SD35_MEDIUM = {"pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": list(range(13))}


def empty(config: dict) -> nn.Module:
    with torch.device("meta"):
        if "_class_name" in config:
            return getattr(diffusers, config["_class_name"]).from_config(config)
        if config["model_type"] == "ldmbert":
            return LDMBertModel(LDMBertConfig(**config))
        kind = getattr(transformers, config["architectures"][0])
        return kind(kind.config_class(**config))


@pytest.mark.parametrize(("name", "part"), SIZES)
def test_they_have_the_published_sizes(name: str, part: str) -> None:
    assert sum(weight.numel() for weight in empty(published(name)[part]).parameters()) == SIZES[name, part]


@pytest.mark.parametrize(("more", "parameters"), [({}, 2_028_328_000), (SD35_LARGE, 8_056_627_520), (SD35_MEDIUM, 2_243_171_520)])
def test_a_stable_diffusion_3_is_told_by_its_tensors(more: dict, parameters: int) -> None:
    model = empty(config := published("stable_diffusion_3")["transformer"] | more)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    named = original.sd3_transformer(dict(model.state_dict()))
    found = stable_diffusion_3.transformer_config({name: tuple(tensor.shape) for name, tensor in named.items()})
    assert found == {"qk_norm": None, "dual_attention_layers": []} | {key: config[key] for key in found if key in config}


@pytest.mark.parametrize("guided", [True, False])
def test_a_flux_is_told_by_its_tensors(guided: bool) -> None:
    config = published("flux")["transformer"] | {"guidance_embeds": guided}
    named = original.flux_transformer(dict(empty(config).state_dict()))
    found = flux.transformer_config({name: tuple(tensor.shape) for name, tensor in named.items()})
    assert found == {key: config[key] for key in found} and len(found) == 8


SANA_SMALL = {"num_layers": 28, "num_attention_heads": 36, "num_cross_attention_heads": 16, "cross_attention_head_dim": 72}
SANA_SMALL |= {"cross_attention_dim": 1152}


@pytest.mark.parametrize(("more", "billions"), [({}, 1.6), (SANA_SMALL, 0.59)])
def test_a_sana_is_told_by_its_tensors(more: dict, billions: float) -> None:
    model = empty(config := published("sana")["transformer"] | more)
    assert sum(weight.numel() for weight in model.parameters()) / 1e9 == pytest.approx(billions, rel=0.02)
    shapes = {name: tuple(tensor.shape) for name, tensor in original.sana_transformer(dict(model.state_dict())).items()}
    found = sana.transformer_config(shapes)
    assert found == {key: config[key] for key in found} and len(found) == 9
    wide = sana.transformer_config(shapes | {"pos_embed": (1, 64**2, 1)})
    assert (wide["sample_size"], wide["interpolation_scale"]) == (64, 1.0)


def test_a_sana_for_4096_pixels_has_its_own_shift(tmp_path: Path) -> None:
    tensors = {"attention_y_norm.weight": torch.zeros(8), "x_embedder.proj.weight": torch.zeros(1152, 32, 1, 1)}
    tensors |= {"y_embedder.y_proj.fc1.weight": torch.zeros(8, 2304)}
    for edge, shift in ((32, 3.0), (128, 6.0)):
        save_file(tensors | {"pos_embed": torch.zeros(1, edge**2, 1)}, tmp_path / "one.safetensors")
        sana._configure(tmp_path / "one.safetensors", tmp_path)
        assert diffusers.DPMSolverMultistepScheduler.load_config(tmp_path / "scheduler")["flow_shift"] == shift


def test_a_z_image_is_told_by_its_tensors() -> None:
    config = published("z_image")["transformer"]
    named = original.z_image_transformer(dict(empty(config).state_dict()))
    found = z_image.transformer_config({name: tuple(tensor.shape) for name, tensor in named.items()})
    assert found == {key: config[key] for key in found} and len(found) == 7


def test_a_qwen_image_is_told_by_its_tensors() -> None:
    config = published("qwen_image")["transformer"]
    found = qwen_image.transformer_config({name: tuple(tensor.shape) for name, tensor in empty(config).state_dict().items()})
    assert found == {key: config[key] for key in found} and len(found) == 4


def test_clips_vocabulary_ships(tmp_path: Path) -> None:
    write_clip_tokenizer(tmp_path / "one")
    write_clip_tokenizer(tmp_path / "two", pad="!")
    one, two = (transformers.CLIPTokenizer.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert one("a cat").input_ids == two("a cat").input_ids == [49406, 320, 2368, 49407]
    assert (one.pad_token_id, two.pad_token_id, two.model_max_length) == (49407, 0, 77)


OF_TWO = {
    f"{original.UNET}{stable_diffusion.FIRST}": (8, 4, 3, 3),
    f"{original.UNET}{stable_diffusion.HEARS}": (8, 1024),
    "first_stage_model.decoder.conv_in.weight": (8, 4, 3, 3),
    "cond_stage_model.model.token_embedding.weight": (8, 8),
}


@pytest.mark.parametrize(
    ("more", "metadata", "prediction", "rescaled"),
    [
        ((), {}, None, False),
        (("v_pred",), {}, "v_prediction", False),
        (("v_pred", "ztsnr"), {}, "v_prediction", True),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction", False),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon", False),
    ],
)
def test_a_stable_diffusion_2_says_what_it_predicts_or_is_refused(
    tmp_path: Path, more: tuple[str, ...], metadata: dict[str, str], prediction: str | None, rescaled: bool
) -> None:
    path = tmp_path / "two.safetensors"
    tensors = {name: torch.zeros(shape) for name, shape in OF_TWO.items()} | {name: torch.zeros(0) for name in more}
    save_file(tensors, path, metadata)
    source = find_source(generator_settings(path))
    with configured(source, stable_diffusion.single()) as folder:
        scheduler = diffusers.DDIMScheduler.load_config(folder / "scheduler")
        unet = diffusers.UNet2DConditionModel.load_config(folder / "unet")
    assert unet["cross_attention_dim"] == 1024 and scheduler.get("rescale_betas_zero_snr", False) == rescaled
    if prediction is None:
        with pytest.raises(ParamsError, match="does not say whether it predicts epsilon .* or v .*Set generator.prediction"):
            Diffusion(scheduler, torch.device("cpu"))
    else:
        assert Diffusion(scheduler, torch.device("cpu")).prediction == prediction
