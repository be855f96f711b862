"""Loads a frozen Stable Diffusion 1.x or 2.x: the miniature, a folder in diffusers' layout, a single file, a hub name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.generator import Generator, choose_device
from ti_pipeline.generators.measured import FORMATS, attention, choose, known
from ti_pipeline.generators.single_file import load_single_file
from ti_pipeline.generators.source import Source, find_source

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_generator(settings: params.Generator, source: Source | None = None) -> Generator:
    """Load and freeze the generator that `settings` names, or `source` if it has been found already.

    Raises ParamsError that says what is missing, what to download and where to put it.
    """
    source = source or find_source(settings)
    device = choose_device(settings.device)
    dtype, choice = choose_dtype(settings.precision, device), None
    if (auto := settings.precision == "auto" and device.type == "cpu") and (choice := known(source.digest, precisions(device))):
        dtype = DTYPES[choice.precision]
    elif auto:
        dtype = torch.float32  # until it has been measured
    try:
        with _quiet():
            parts = _load_folder(source, dtype) if source.layout == "folder" else load_single_file(source.path, dtype)
    except ParamsError:
        raise
    except Exception as error:  # the loaders raise all sorts; the user needs the file and the reason
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ParamsError(f"generator.model: {source.path} cannot be loaded as a Stable Diffusion 1.x or 2.x model: {reason[0]}") from error
    tokenizer, text_encoder, vae, unet, scheduler_config = parts
    if auto and choice is None:
        with _quiet():
            choice = choose(unet.requires_grad_(False).eval(), source.digest, precisions(device))
            dtype = DTYPES[choice.precision]
            text_encoder.to(dtype), unet.to(dtype)
    if choice and choice.threads:
        torch.set_num_threads(min(choice.threads, torch.get_num_threads()))
    memory_format = choice.memory_format if choice else "channels_last" if device.type == "cuda" else "contiguous"
    suit(text_encoder, unet, vae, device, dtype, memory_format)
    for network in (text_encoder, unet, vae):
        network.requires_grad_(False).eval().to(device)
    if settings.compile:
        unet.compile()
    return Generator(source.name, source.digest, tokenizer, text_encoder, vae, unet, scheduler_config, device, dtype, memory_format)


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is the best that the device says it has: bfloat16 where it multiplies in it, else float16 or float32.

    On a CPU it is measured whether that is the fastest (`measured`).
    """
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return DTYPES[precisions(device)[-1]]


def precisions(device: torch.device) -> tuple[str, ...]:
    """Those that are worth measuring, the safest first: a CPU may claim bfloat16 instructions."""
    bfloat16 = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return ("float32", "bfloat16") if bfloat16 else ("float32",)


def suit(
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    vae: AutoencoderKL,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: str,
) -> None:
    """Memory format and attention that measure best; on a CPU the VAE likes channels last whatever the U-Net does."""
    unet.to(memory_format=FORMATS[memory_format])
    if device.type == "cpu":
        vae.to(memory_format=torch.channels_last)
        if dtype != torch.float32:
            unet.set_attn_processor(attention(dtype))
            text_encoder.set_attn_implementation("eager")


def _load_folder(source: Source, dtype: torch.dtype) -> tuple:
    folder = source.path
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True, trust_remote_code=False)
    text_encoder = _load(CLIPTextModel, source, "text_encoder", dtype=dtype, trust_remote_code=False)
    vae = _load(AutoencoderKL, source, "vae", torch_dtype=torch.float32)
    unet = _load(UNet2DConditionModel, source, "unet", torch_dtype=dtype)
    return tokenizer, text_encoder, vae, unet, dict(DDIMScheduler.load_config(folder / "scheduler", local_files_only=True))


@contextmanager
def _quiet() -> Iterator[None]:
    """The loaders' own bars and remarks would run into the pipeline's."""
    libraries = (diffusers_logging, transformers_logging)
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bar) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bar:
                library.enable_progress_bar()


def _load(model: Any, source: Source, part: str, **how: Any) -> Any:
    """Weights that a file lacks would be left at random without an error."""
    folder, variant = source.path / part, source.variant(part)
    loaded, info = model.from_pretrained(folder, local_files_only=True, output_loading_info=True, variant=variant, **how)
    if info["missing_keys"] or info.get("mismatched_keys"):
        lacking = sorted(map(str, [*info["missing_keys"], *info.get("mismatched_keys", ())]))
        raise ParamsError(
            f"generator.model: the weights in {folder} do not fit its config.json: {len(lacking)} missing or of another shape, "
            f"such as {lacking[0]}. Download that folder again."
        )
    return loaded
