"""Loads a U-Net, its VAE and its text encoders, frozen, onto a device in the precision that is best there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.generators import quantisation
from ti_pipeline.generators.family import learning, other_density
from ti_pipeline.generators.generator import choose_device
from ti_pipeline.generators.latent_diffusion import LatentDiffusion
from ti_pipeline.generators.latent_model import LatentModel
from ti_pipeline.generators.measured import FORMATS, attention, choose, known
from ti_pipeline.generators.memory import checkpoint, placed, tile
from ti_pipeline.generators.prediction import saying
from ti_pipeline.generators.quantisation import is_quantised
from ti_pipeline.generators.reader import Frame, TextReader, TokenizerAlone
from ti_pipeline.generators.refusals import part_config
from ti_pipeline.generators.single_file import SingleFile, configured, lacking_of, load_single_file, load_tokenizer, part_class
from ti_pipeline.generators.source import Source
from ti_pipeline.generators.text_encoder import TextEncoder
from ti_pipeline.model_files import safetensors_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Model = TypeVar("Model", bound=LatentModel)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Text:
    """The parts of a text encoder: the folders of its tokenizer and of its weights, and their classes in transformers (or diffusers).

    `context` are the tokens that the stock pipeline reads; by default as many as its positions. `frames` say what it reads of a prompt
    and of a negative prompt where there is more to it. `inner` is the module of the model that reads, where that is a part of it.
    """

    tokenizer: str
    encoder: str
    model: str = "CLIPTextModel"
    tokens: str = "CLIPTokenizer"
    context: int | None = None
    frames: Callable[[PreTrainedTokenizerBase], tuple[Frame, Frame | None]] | None = None
    inner: str = ""


def load_latent_model(
    kind: type[Model], texts: Mapping[str, Text], single: SingleFile, source: Source, settings: params.Generator
) -> Model:
    """A generator of the given `kind` with the text encoders `texts`, by name; on the device `meta` it is its shapes alone, and no weight
    is read. Raises what the loaders raise, and ParamsError."""
    device = choose_device(settings.device)
    if settings.quantise:
        quantisation.check_source(source)
        if device.type != "meta":
            quantisation.check(settings.quantise, device)
    dtype, choice = choose_dtype(settings.precision, device), None
    learn, density = learning(source, settings.encoders), other_density(source, settings.density)
    auto = settings.precision == "auto" and device.type == "cpu" and not settings.quantise
    if auto and (choice := known(source.digest, precisions(device))):
        dtype = DTYPES[choice.precision]
    elif auto:
        dtype = torch.float32  # until it has been measured
    with _quiet():
        generator = replace(_read(kind, texts, single, source, Manner(device, dtype, settings.quantise)), learn=learn, density=density)
        if auto and choice is None and isinstance(generator, LatentDiffusion):
            generator.denoiser.requires_grad_(False).eval()
            choice = choose(generator, precisions(device))
            dtype = DTYPES[choice.precision]
        memory_format = choice.memory_format if choice else "channels_last" if device.type == "cuda" else "contiguous"
        generator = suited(generator, dtype, memory_format)
    if choice and choice.threads:
        torch.set_num_threads(min(choice.threads, torch.get_num_threads()))
    for network in generator.networks.values():
        network.requires_grad_(False).eval()
    if settings.vae_tile:
        tile(generator.vae, settings.vae_tile)
    if settings.checkpointing:
        checkpoint(generator)
    generator = placed(generator, settings.offload)
    if settings.compile:
        generator.denoiser.compile()
    return generator


@dataclass(frozen=True)
class Manner:
    """Where weights are read to, in which type, and what those that are large are quantised to."""

    device: torch.device
    dtype: torch.dtype
    quantise: str | None = None

    def of(self, library: Any) -> dict[str, Any]:
        """What `from_pretrained` of a library is told to quantise a network."""
        if not self.quantise:
            return {}
        config = quantisation.config(self.quantise, library, self.dtype)
        return {"quantization_config": config, **({"device_map": {"": self.device}} if self.device.type == "cuda" else {})}


def text_readers(texts: Mapping[str, Text], source: Source, single: SingleFile) -> dict[str, TextReader]:
    """How the text encoders `texts` read."""
    readers: dict[str, TextReader] = {}
    with configured(source, single) as folder:
        for name, text in texts.items():
            tokenizer, config = load_tokenizer(text.tokens, folder / text.tokenizer), part_config(folder, text.encoder)
            readers[name] = TokenizerAlone(tokenizer, _frames(text, tokenizer, config)[0], _width(config))
    return readers


def _width(config: Mapping[str, Any]) -> int:
    """Of a text encoder's vectors, by its configuration; a model that sees, too, has a part for its language."""
    found = config.get("hidden_size") or config.get("d_model")
    return int(found) if found else _width(config["text_config"])


def _frames(text: Text, tokenizer: PreTrainedTokenizerBase, config: Mapping[str, Any]) -> tuple[Frame, Frame | None]:
    if text.frames:
        return text.frames(tokenizer)
    return Frame(text.context or min(tokenizer.model_max_length, config["max_position_embeddings"])), None


def suited(generator: Model, dtype: torch.dtype, memory_format: str) -> Model:
    """In the type, memory format and attention that measure best; on a CPU the VAE likes channels last whatever the U-Net does."""
    denoiser, on_cpu = generator.denoiser, generator.device.type == "cpu"
    if not is_quantised(denoiser):
        torch.nn.Module.to(denoiser, dtype)
    if isinstance(generator, LatentDiffusion):
        denoiser.to(memory_format=FORMATS[memory_format])
        if on_cpu and dtype != torch.float32:
            denoiser.set_attn_processor(attention(dtype))
    if on_cpu and all(weight.ndim < 5 for weight in generator.vae.parameters()):  # one of moving pictures has another format
        generator.vae.to(memory_format=torch.channels_last)
    for encoder in generator.encoders.values():
        if not is_quantised(encoder.model):
            torch.nn.Module.to(encoder.model, dtype)
        if on_cpu and dtype != torch.float32:
            encoder.model.set_attn_implementation("eager")
    return replace(generator, dtype=dtype, memory_format=memory_format)


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


def _read(kind: type[Model], texts: Mapping[str, Text], single: SingleFile, source: Source, manner: Manner) -> Model:
    """The networks as they come from the disk, on the CPU; the VAE in float32."""
    if manner.device.type == "meta":
        with configured(source, single) as folder:
            return _from_folder(kind, texts, replace(source, path=folder), manner)
    if source.layout == "folder":
        return _from_folder(kind, texts, source, manner)
    parts = load_single_file(source, single, manner.dtype)
    encoders = {name: _encoder(text, parts[text.tokenizer], parts[text.encoder]) for name, text in texts.items()}
    scheduler = saying(parts["scheduler"], source.prediction) if source.prediction else parts["scheduler"]
    vae, denoiser = parts[kind.VAE[0]], parts[kind.DENOISER[0]]
    return kind(source.name, source.digest, encoders, vae, denoiser, scheduler, manner.device, manner.dtype)


def _from_folder(kind: type[Model], texts: Mapping[str, Text], source: Source, manner: Manner) -> Model:
    """Of a generator's shapes nobody asks for the digest of its weights, which would have to be read for it."""
    import diffusers
    import transformers

    encoders: dict[str, TextEncoder] = {}
    (denoiser_part, denoiser_class), (vae_part, vae_class) = kind.DENOISER, kind.VAE
    empty, dtype = manner.device.type == "meta", manner.dtype
    whole: Callable[..., Any] = _empty if empty else _whole
    for name, text in texts.items():
        how = manner.of(transformers) if not empty and _is_large(source.path / text.encoder) else {}
        more: dict[str, Any] = {} if empty else {"ignore_mismatched_sizes": True}  # they are told by name
        model = whole(part_class(text.model), source, text.encoder, dtype=dtype, **more, **how)
        encoders[name] = _encoder(text, load_tokenizer(text.tokens, source.path / text.tokenizer), model)
    vae = whole(getattr(diffusers, vae_class), source, vae_part, torch_dtype=torch.float32)
    how = {} if empty else manner.of(diffusers)
    denoiser = whole(getattr(diffusers, denoiser_class), source, denoiser_part, torch_dtype=dtype, **how)
    scheduler = dict(diffusers.DDIMScheduler.load_config(source.path / "scheduler", local_files_only=True))
    if source.prediction:
        scheduler = saying(scheduler, source.prediction)
    digest = "" if empty else source.digest
    return kind(source.name, digest, encoders, vae, denoiser, scheduler, manner.device, dtype, quantised=manner.quantise)


def _encoder(text: Text, tokenizer: PreTrainedTokenizerBase, model: Any) -> TextEncoder:
    return TextEncoder(tokenizer, model.get_submodule(text.inner), *_frames(text, tokenizer, model.config.to_dict()))


def _is_large(folder: Path) -> bool:
    """Whether a text encoder is worth quantising, by the headers of its weights."""
    shapes = [safetensors_shapes(file, "generator.model") for file in folder.glob("*.safetensors")]
    return sum(prod(shape) for each in shapes for shape in each.values()) >= quantisation.LARGE


def _whole(model: Any, source: Source, part: str, **how: Any) -> Any:
    """Weights that a file lacks would be left at random without an error."""
    folder, variant = source.path / part, source.variant(part)
    loaded, info = model.from_pretrained(folder, local_files_only=True, output_loading_info=True, variant=variant, **how)
    if lacking := lacking_of(info):
        raise ParamsError(
            f"generator.model: the weights in {folder} do not fit its config.json: {len(lacking)} missing or of another shape, "
            f"such as {lacking[0]}. Download that folder again."
        )
    return loaded


def _empty(model: Any, source: Source, part: str, **how: torch.dtype) -> Any:
    """A network of which there are the shapes, as its configuration has them."""
    folder = source.path / part
    with torch.device("meta"):
        if hasattr(model, "config_class") and model.config_class:
            network = model(model.config_class.from_pretrained(folder, local_files_only=True))
        else:
            network = model.from_config(model.load_config(folder, local_files_only=True))
    (dtype,) = how.values()
    return torch.nn.Module.to(network, dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """The loaders' own bars and remarks would run into the pipeline's."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

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
