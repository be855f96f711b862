"""Single files by the names of their authors' code, held against the folders in diffusers' layout that they were made from."""

from __future__ import annotations

import inspect
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_model, single_file_utils
from safetensors.torch import save_file

from tests.generators import original, tiny_latent_diffusion, tiny_stable_diffusion_xl
from tests.generators.original import Tensors
from tests.generators.tiny_flow import FLUX, write_flux, write_stable_diffusion_3
from tests.generators.tiny_language import write_qwen_image, write_sana, write_z_image
from tests.generators.tiny_stable_diffusion import generator_settings, load_tiny, write_folder
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.checkpoint import kept_bytes, tensor_shapes
from ti_pipeline.generators.generator import Generator, weight_digests
from ti_pipeline.generators.placeholder import encode
from ti_pipeline.generators.reader import TokenizersAlone
from ti_pipeline.generators.source import find_source
from ti_pipeline.sampling.sample import Settings, sample

PROMPT = "a photo of a red cat on the moon"


@dataclass
class Case:
    """A tiny folder, the same weights by the names of the original code, the parts that these lack, and what is drawn of them."""

    name: str
    folder: Path
    tensors: Tensors
    parts: dict[str, str]
    generator: Generator
    solver: str

    def load(self, path: Path) -> Generator:
        return load_tiny(path, parts=self.parts)

    def drawn(self, generator: Generator) -> np.ndarray:
        ((_, picture),) = sample(generator, [PROMPT], {}, [7], Settings(self.solver, 2, 3.0, "", 1))
        return np.asarray(picture)

    def file(self, folder: Path, tensors: Tensors | None = None, metadata: dict[str, str] | None = None) -> Path:
        """The single file, and beside it the configuration of the small widths; no weights."""
        path = folder / "dream.safetensors"
        save_file(dict(self.tensors if tensors is None else tensors), path, metadata)
        shutil.copytree(self.folder, folder / "dream", ignore=shutil.ignore_patterns("*.safetensors", "model_index.json"))
        return path


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Tensors], str]] = {
    "latent diffusion": (tiny_latent_diffusion.write_folder, original.latent_diffusion, "ddim"),
    "Stable Diffusion 1": (write_folder, original.stable_diffusion, "ddim"),
    "Stable Diffusion 2": (lambda folder: write_folder(folder, family=2), original.stable_diffusion_2, "ddim"),
    "Stable Diffusion XL": (tiny_stable_diffusion_xl.write_folder, original.stable_diffusion_xl, "ddim"),
    "Stable Diffusion 3": (write_stable_diffusion_3, original.stable_diffusion_3, "euler"),
    "FLUX.1": (write_flux, original.flux, "euler"),
    "SANA": (write_sana, original.sana, "euler"),
    "Z-Image": (write_z_image, original.z_image, "euler"),
    "Qwen-Image": (write_qwen_image, original.qwen_image, "euler"),
}
ALONE = ("SANA", "Z-Image", "Qwen-Image")  # whose files hold the transformer and nothing else


@pytest.fixture(scope="module", params=MAKERS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(request.param, tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made("FLUX.1", tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made("Stable Diffusion 3", tmp_path_factory.mktemp("files"))


def made(name: str, place: Path) -> Case:
    write, named, solver = MAKERS[name]
    folder = write(place / "tiny")
    parts = dict.fromkeys(("text_encoder", "vae"), str(folder)) if name in ALONE else {}
    return Case(name, folder, named(folder), parts, load_tiny(folder), solver)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was asked of a network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def small_flux(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock converter splits FLUX's joined projections at the published width; here it is told the small one."""
    width = FLUX["num_attention_heads"] * FLUX["attention_head_dim"]
    source = inspect.getsource(single_file_utils.convert_flux_transformer_checkpoint_to_diffusers)
    assert source.count("inner_dim = 3072") == 1
    names = dict(vars(single_file_utils))
    exec(source.replace("inner_dim = 3072", f"inner_dim = {width}"), names)
    loadable = single_file_model.SINGLE_FILE_LOADABLE_CLASSES["FluxTransformer2DModel"]
    monkeypatch.setitem(loadable, "checkpoint_mapping_fn", names["convert_flux_transformer_checkpoint_to_diffusers"])


@torch.no_grad()
def test_a_file_says_and_draws_what_its_folder_does(case: Case, tmp_path: Path) -> None:
    path = case.file(tmp_path)
    loaded = case.load(path)
    assert loaded.name == "dream" and weight_digests(loaded) == weight_digests(case.generator)
    theirs, ours = encode(case.generator, [PROMPT], {}), encode(loaded, [PROMPT], {})
    for name, part in ours.parts.items():
        torch.testing.assert_close(part, theirs.parts[name], rtol=0, atol=1e-5)
    assert np.abs(case.drawn(loaded).astype(int) - case.drawn(case.generator)).max() <= 1  # weights lie otherwise in memory
    reader = TokenizersAlone(find_source(generator_settings(path, parts=case.parts)), tuple(case.generator.learning))
    frames = {name: (each.frame, each.width) for name, each in reader.learning.items()}
    assert frames == {name: (each.frame, each.width) for name, each in case.generator.learning.items()}


def test_half_precision_and_what_trainers_put_around_it(case: Case, tmp_path: Path) -> None:
    """Weights as float16, in a checkpoint's `state_dict` within another; averaged weights beside them are not what tools draw with."""
    averaged = {f"model_ema.{name.replace('.', '')}": torch.zeros(1) for name in case.tensors}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in case.tensors.items()}
    path = case.file(tmp_path).with_suffix(".ckpt")
    torch.save({"epoch": 3, "state_dict": {"state_dict": half | averaged}}, path)
    loaded = case.load(path)
    for part, network in loaded.networks.items():
        theirs = case.generator.networks[part].state_dict()
        if part == loaded.DENOISER[0] or not case.parts:
            theirs = {name: weight.half().to(weight.dtype) for name, weight in theirs.items()}
        assert all(torch.equal(weight, theirs[name]) for name, weight in network.state_dict().items())
    path = (
        case.file(tmp_path / "other", {f"state_dict.{name}": tensor for name, tensor in case.tensors.items()})
        if (tmp_path / "other").mkdir() is None
        else path
    )
    assert weight_digests(case.load(path)) == weight_digests(case.generator)


@pytest.mark.parametrize("scaled", [False, True])
def test_fp8(case: Case, tmp_path: Path, scaled: bool) -> None:
    """As it is, and with a scale for each weight, as user interfaces write it."""
    small: Tensors = {}
    for name, tensor in case.tensors.items():
        if tensor.ndim != 2 or not (name.startswith(original.UNET) and name.endswith(".weight")):
            small[name] = tensor
            continue
        scale = tensor.abs().max() / 448 if scaled else torch.tensor(1.0)
        small[name] = (tensor / scale).to(torch.float8_e4m3fn)
        if scaled:
            small[name.removesuffix(".weight") + ".scale_weight"] = scale
            small[name.removesuffix(".weight") + ".scale_input"] = scale.clone()
    if scaled:
        small[f"{original.UNET}scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    loaded = case.load(case.file(tmp_path, small))
    whole = case.generator.networks[case.generator.DENOISER[0]].state_dict()
    differ = 0
    for name, weight in loaded.networks[loaded.DENOISER[0]].state_dict().items():
        expected = whole[name]
        differ += not torch.equal(weight, expected)
        torch.testing.assert_close(weight, expected, rtol=2**-4, atol=2e-3 if scaled else 2**-9)
    assert differ > 5 and all(
        torch.equal(weight, case.generator.vae.state_dict()[name]) for name, weight in loaded.vae.state_dict().items()
    )


def parts_beside(case: Case, folder: Path) -> dict[str, str]:
    """The text encoders, vocabularies and VAE of FLUX as people have them: files by their names, and folders."""
    clip = {
        f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in original.weights(case.folder, "text_encoder").items()
    }
    save_file(clip, folder / "clip_l.safetensors")
    save_file(original.vae(case.folder), folder / "ae.safetensors")
    return {
        "vae": str(folder / "ae.safetensors"),
        "text_encoder": str(folder / "clip_l.safetensors"),
        "text_encoder_2": str(case.folder),
        "tokenizer_2": str(case.folder / "tokenizer_2"),
    }


def test_a_transformer_alone_takes_the_rest_from_settings(flux: Case, tmp_path: Path) -> None:
    alone = {name.removeprefix(original.UNET): tensor for name, tensor in flux.tensors.items() if name.startswith(original.UNET)}
    path = flux.file(tmp_path, alone)
    for part in ("tokenizer", "tokenizer_2", "text_encoder_2"):  # CLIP's vocabulary ships; the other two are given
        shutil.rmtree(path.with_suffix("") / part)
    with pytest.raises(ParamsError) as error:
        load_tiny(path)
    said = str(error.value)
    assert "dream.safetensors is a FLUX.1 without text_encoder and text_encoder_2 and tokenizer_2 and vae" in said
    assert "Set generator.parts.text_encoder to a .safetensors file" in said
    assert "generator.parts.tokenizer_2 to a folder with the vocabulary of T5 (tokenizer.json and tokenizer_config.json)" in said
    given = parts_beside(flux, tmp_path)
    loaded = load_tiny(path, parts=given)
    assert (
        weight_digests(loaded) == weight_digests(flux.generator)
        and np.abs(flux.drawn(loaded).astype(int) - flux.drawn(flux.generator)).max() <= 1
    )


def test_parts_are_in_the_digest(flux: Case, tmp_path: Path) -> None:
    path, given = flux.file(tmp_path), parts_beside(flux, tmp_path)
    digests = {find_source(generator_settings(path)).digest, find_source(generator_settings(path, parts=given)).digest}
    save_file({name: tensor + 1 for name, tensor in original.vae(flux.folder).items()}, tmp_path / "ae.safetensors")
    digests.add(find_source(generator_settings(path, parts=given)).digest)
    digests.add(find_source(generator_settings(path, parts=given | {"text_encoder_2": None})).digest)
    digests.add(find_source(generator_settings(path, parts={name: given[name] for name in ("vae", "text_encoder")})).digest)
    assert len(digests) == 5


def test_parts_that_are_not_there_or_of_another_model_are_refused(flux: Case, folder: Path, tmp_path: Path) -> None:
    path, given = flux.file(tmp_path), parts_beside(flux, tmp_path)
    for parts, words in (
        ({"vae": "nowhere.safetensors"}, "generator.parts.vae: there is nothing at .*nowhere"),
        ({"unet": given["vae"]}, "generator.parts: FLUX.1 has no part unet. It has scheduler, text_encoder,"),
        ({"vae": given["text_encoder"]}, "generator.parts.vae: .*clip_l.safetensors lacks weights of its vae"),
        ({"text_encoder": given["vae"]}, "generator.parts.text_encoder: .*ae.safetensors lacks .* weights of its text_encoder"),
        ({"vae": str(path.with_suffix("") / "vae" / "config.json")}, "config.json is no .safetensors, .ckpt, .pth, .pt or .bin file"),
    ):
        with pytest.raises(ParamsError, match=words):
            load_tiny(path, parts=parts)
    with pytest.raises(ParamsError, match="a folder has all of its parts in it"):
        find_source(generator_settings(folder, parts=given))


@pytest.mark.parametrize("case", ["Stable Diffusion XL"], indirect=True)
def test_what_is_built_otherwise_than_the_published_model_is_said(case: Case, tmp_path: Path) -> None:
    """As SSD-1B is, from whose U-Net blocks were taken; and a text encoder in the place of another."""
    fewer = {name: tensor for name, tensor in case.tensors.items() if ".transformer_blocks.1." not in name}
    assert len(fewer) < len(case.tensors)
    with pytest.raises(ParamsError, match="dream.safetensors lacks weights of its unet, or its unet is not built like the published one"):
        load_tiny(case.file(tmp_path, fewer))
    (tmp_path / "other").mkdir()
    save_file(original.weights(case.folder, "text_encoder_2"), tmp_path / "clip_g.safetensors")
    swapped = {"text_encoder": str(tmp_path / "clip_g.safetensors")}
    with pytest.raises(ParamsError, match="parts.text_encoder: .*clip_g.safetensors lacks .* weights of its text_encoder, such as .*shape"):
        load_tiny(case.file(tmp_path / "other"), parts=swapped)
    broken = Path(shutil.copytree(case.folder, tmp_path / "broken"))
    shutil.copy(broken / "text_encoder_2" / "model.safetensors", broken / "text_encoder")
    with pytest.raises(ParamsError, match="the weights in .*text_encoder do not fit its config.json: .* such as "):
        load_tiny(broken)


def test_stable_diffusion_3_can_do_without_its_t5(sd3: Case, tmp_path: Path) -> None:
    path = sd3.file(tmp_path)
    shutil.rmtree(path.with_suffix("") / "tokenizer_3")
    with pytest.raises(ParamsError, match="without tokenizer_3.*or set generator.parts.text_encoder_3 to null"):
        load_tiny(path)
    without = load_tiny(path, parts={"text_encoder_3": None})
    plain = load_tiny(write_stable_diffusion_3(tmp_path / "plain", t5=False))
    assert without.encoders.keys() == plain.encoders.keys() == {"clip_l", "clip_g"}
    lacking = {name: tensor for name, tensor in sd3.tensors.items() if ".t5xxl." not in name}
    (tmp_path / "lacking").mkdir()
    assert weight_digests(load_tiny(sd3.file(tmp_path / "lacking", lacking))) == weight_digests(without)


def test_a_clip_without_its_projection_is_projected_by_the_identity(sd3: Case, tmp_path: Path) -> None:
    """Those that people have for Stable Diffusion 3 lack it, and Stability AI's code takes the identity then."""
    name = "text_encoders.clip_l.transformer.text_projection.weight"
    loaded = load_tiny(sd3.file(tmp_path, {each: tensor for each, tensor in sd3.tensors.items() if each != name}))
    assert torch.equal(loaded.encoders["clip_l"].model.text_projection.weight, torch.eye(32))
    (tmp_path / "other").mkdir()
    other = name.replace("clip_l", "clip_g")
    with pytest.raises(ParamsError, match="lacks 1 weights of its text_encoder_2, such as text_projection.weight"):
        load_tiny(sd3.file(tmp_path / "other", {each: tensor for each, tensor in sd3.tensors.items() if each != other}))


def write_gguf(path: Path, tensors: Tensors, **shapes: list[int]) -> Path:
    """Matrices in Q8_0, all else as it is; `shapes` are those that ComfyUI-GGUF notes of what it has reshaped."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "flux")
    for name, shape in shapes.items():
        writer.add_array(f"comfy.gguf.orig_shape.{name}", shape)
    for name, tensor in tensors.items():
        many = tensor.ndim == 2 and tensor.shape[1] % 32 == 0 and "weight" in name
        kind = gguf.GGMLQuantizationType.Q8_0 if many else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("case", ["Stable Diffusion 1"], indirect=True)
def test_a_gguf_of_all_parts_and_one_of_which_rows_were_made_whole_blocks(case: Case, tmp_path: Path) -> None:
    """As stable-diffusion.cpp writes them, and ComfyUI-GGUF a U-Net."""
    reshaped, shapes = {}, {}
    for name, tensor in case.tensors.items():
        if name.startswith(original.UNET) and tensor.ndim > 1 and tensor.numel() % 256 == 0 and tensor.shape[-1] % 256:
            shapes[name], tensor = list(tensor.shape), tensor.reshape(-1, 256)
        reshaped[name] = tensor
    assert len(shapes) > 20
    theirs = case.drawn(case.generator).astype(float)
    for number, (tensors, noted) in enumerate(((case.tensors, {}), (reshaped, shapes))):
        place = tmp_path / str(number)
        place.mkdir()
        path = write_gguf(case.file(place, {"nothing": torch.zeros(1)}).with_suffix(".gguf"), tensors, **noted)
        assert tensor_shapes(path) == {name: tuple(tensor.shape) for name, tensor in case.tensors.items()}
        loaded = case.load(path)
        assert 0 < np.abs(case.drawn(loaded).astype(float) - theirs).mean() < 3
        there = sum(weight.nbytes for weight in loaded.denoiser.parameters())
        assert there == kept_bytes(path, 4) < sum(weight.nbytes for weight in case.generator.networks["unet"].parameters())


@pytest.mark.parametrize("case", ["Stable Diffusion 3", "FLUX.1", *ALONE], indirect=True)
def test_gguf(case: Case, tmp_path: Path) -> None:
    whole = {name.removeprefix(original.UNET): tensor for name, tensor in case.tensors.items() if name.startswith(original.UNET)}
    path = write_gguf(case.file(tmp_path, {"nothing": torch.zeros(1)}).with_suffix(".gguf"), whole)
    given = {part.name: str(case.folder) for part in case.folder.iterdir() if part.name.startswith(("text_encoder", "vae"))}
    loaded = load_tiny(path, parts=given)
    stored = {weight.dtype for weight in loaded.denoiser.parameters()}
    assert torch.uint8 in stored  # it stays as small as the file
    ours, theirs = case.drawn(loaded).astype(float), case.drawn(case.generator).astype(float)
    assert 0 < np.abs(ours - theirs).mean() < 3
    z0, t = torch.randn(1, *loaded.latent_shape), torch.tensor([500])
    rows = {name: encoder.table[:1].clone().requires_grad_() for name, encoder in loaded.learning.items()}
    ids = loaded.tokenise(["a <x> cat"], {"<x>": 1})
    gradients = torch.autograd.grad(loaded.losses(z0, z0, t, loaded.condition(ids, rows)).sum(), list(rows.values()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_a_gguf_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ParamsError, match="no GGUF file"):
        load_tiny(broken)


@pytest.mark.parametrize("case", ALONE, indirect=True)
def test_a_transformer_under_a_language_model_says_what_it_lacks(case: Case, tmp_path: Path) -> None:
    """By its own names alone, as people download it."""
    tensors = {name.removeprefix(original.UNET): tensor for name, tensor in case.tensors.items()}
    path = case.file(tmp_path, tensors)
    shutil.rmtree(path.with_suffix("") / "tokenizer")
    model = {"SANA": "Gemma 2 2B", "Z-Image": "Qwen3 4B", "Qwen-Image": "Qwen2.5-VL 7B"}[case.name]
    with pytest.raises(ParamsError) as error:
        load_tiny(path)
    said = str(error.value)
    assert f"dream.safetensors is a {case.name} without text_encoder and tokenizer and vae" in said
    assert f"Set generator.parts.text_encoder to a .safetensors file with {model}, or its folder" in said
    assert f"generator.parts.tokenizer to a folder with the vocabulary of {model} (tokenizer.json and tokenizer_config.json)" in said
    given = {part: str(case.folder) for part in ("text_encoder", "tokenizer", "vae")}
    assert weight_digests(load_tiny(path, parts=given)) == weight_digests(case.generator)


@pytest.mark.parametrize("case", ("SANA", "Z-Image", "Qwen-Image"), indirect=True)
def test_a_language_model_and_a_vae_as_files(case: Case, tmp_path: Path) -> None:
    """The language model by the names of its authors; within the file of the transformer too, as user interfaces save all in one."""
    text = original.language_model(case.folder)
    start = {"SANA": "gemma2_2b", "Z-Image": "qwen3_4b", "Qwen-Image": "qwen25_7b"}[case.name]
    save_file(text, tmp_path / "text.safetensors")
    vae = {"SANA": original.deep_vae, "Z-Image": original.vae, "Qwen-Image": original.moving_vae}[case.name](case.folder)
    save_file(vae, tmp_path / "vae.safetensors")
    path = case.file(tmp_path)
    given = {"text_encoder": str(tmp_path / "text.safetensors"), "vae": str(tmp_path / "vae.safetensors")}
    assert weight_digests(load_tiny(path, parts=given)) == weight_digests(case.generator)
    (tmp_path / "whole").mkdir()
    whole = case.file(
        tmp_path / "whole", case.tensors | original.under(f"text_encoders.{start}.transformer.", text) | original.under(original.VAE, vae)
    )
    assert weight_digests(load_tiny(whole)) == weight_digests(case.generator)


@pytest.mark.parametrize("case", ["Qwen-Image"], indirect=True)
def test_a_vae_for_moving_pictures_by_the_names_of_diffusers_and_one_that_lacks_a_weight(case: Case, tmp_path: Path) -> None:
    vae, file = original.weights(case.folder, "vae"), tmp_path / "vae.safetensors"
    save_file(vae, file)
    path, given = case.file(tmp_path), case.parts | {"vae": str(file)}
    assert weight_digests(load_tiny(path, parts=given)) == weight_digests(case.generator)
    for other in ({}, {"decoder.conv_in.bias": vae["decoder.conv_in.bias"][:1].clone()}):
        save_file({name: tensor for name, tensor in vae.items() if name != "decoder.conv_in.bias"} | other, file)
        with pytest.raises(
            ParamsError, match=r"generator.parts.vae: .*vae.safetensors lacks 1 weights of its vae, such as decoder.conv_in.b"
        ):
            load_tiny(path, parts=given)


@pytest.mark.parametrize("case", ["SANA"], indirect=True)
def test_a_sana_without_what_nothing_reads(case: Case, tmp_path: Path) -> None:
    lacking = {name: tensor for name, tensor in case.tensors.items() if not name.endswith(("pos_embed", "y_embedding"))}
    assert len(lacking) == len(case.tensors) - 2
    assert weight_digests(case.load(case.file(tmp_path, lacking))) == weight_digests(case.generator)
