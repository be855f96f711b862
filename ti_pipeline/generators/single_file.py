"""Loads a single-file checkpoint part by part, by the stock classes of its family. Nothing is read from a network.

Such a file has weights and no configuration. That of a part is looked for in `generator.parts`; in a folder beside the file with its name
(`dream.safetensors`, `dream/`), in diffusers' layout; and among those that ship with the package. Weights that it lacks come from
`generator.parts`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.checkpoint import GGUF, WHOLE, plain, read_tensors, tensor_shapes
from ti_pipeline.generators.layouts import Tensors, moving_vae_weights, text_encoder_weights, unscaled
from ti_pipeline.generators.refusals import PARTS, SETTING, a, whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ti_pipeline.generators.source import Source

DENOISER, VAE = (WHOLE, ""), ("first_stage_model.", "vae.")
_PREFIXES = {"unet": DENOISER, "transformer": DENOISER, "vae": VAE, "vqvae": VAE}
MOVING = ("AutoencoderKLQwenImage",)  # of which diffusers' own loader of single files knows nothing
_LETTERS = 26  # fewer pieces are no vocabulary
_VOCABULARY = "a folder with tokenizer.json and tokenizer_config.json"
_WEIGHTS = "a .safetensors file with its weights, or its folder in diffusers' layout"


@dataclass(frozen=True)
class SingleFile:
    """How a family's single files are read.

    `index` is the `model_index.json` of its stock pipeline. `configure` writes the configurations of a file that ship into a folder, or
    raises ParamsError that says what to put beside the file. `prefixes` begin the names of each part's weights in a file; the first that
    is there counts. `needed` says what to give for a part that does not ship. `identity` are the text encoders whose projection is the
    identity where a file has none. `idle` are tensors that the stock converter of a part asks for and throws away, and that not every
    file has.
    """

    index: dict[str, Any]
    configure: Callable[[Path, Path], None]
    prefixes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)
    identity: tuple[str, ...] = ()
    idle: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def starts(self, part: str) -> tuple[str, ...]:
        return self.prefixes.get(part, _PREFIXES.get(part, ()))


@contextmanager
def configured(source: Source, how: SingleFile) -> Iterator[Path]:
    """While it is open, a folder with all configurations of a generator, in diffusers' layout. Raises ParamsError."""
    if source.layout == "folder":
        yield source.path
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        parts, without = _parts(source, how), []
        own = {part: found for part in parts if (found := _own_configuration(source, part))}
        if len(own) < len(parts):
            with whole(source.path, source.family):
                how.configure(source.path, folder)
        for part, found in own.items():
            shutil.rmtree(folder / part, ignore_errors=True)
            (folder / part).symlink_to(found.resolve(), target_is_directory=True)
        shapes = tensor_shapes(source.path)
        for part in parts:
            given = source.given.get(part)
            has_weights = not _is_network(part) or given is not None or _start(shapes, how.starts(part)) is not None
            if not has_weights or not (folder / part).is_dir():
                without.append(part)
        if without:
            raise _lacks(source, how, without)
        left_out = {part: [None, None] for part, named in how.index.items() if isinstance(named, list) and part not in parts}
        (folder / "model_index.json").write_text(json.dumps(how.index | left_out), encoding="utf-8")
        yield folder


def load_single_file(source: Source, how: SingleFile, dtype: torch.dtype) -> dict[str, Any]:
    """Networks, tokenizers and the scheduler's configuration, by part; the networks in `dtype`, the VAE in float32. Raises ParamsError."""
    from diffusers import DDIMScheduler

    loaded: dict[str, Any] = {}
    with configured(source, how) as folder:
        tensors = read_tensors(source.path)
        for part in _parts(source, how):
            name = how.index[part][1]
            if part == "scheduler":
                loaded[part] = DDIMScheduler.load_config(folder / part, local_files_only=True)
            elif not _is_network(part):
                loaded[part] = load_tokenizer(name, folder / part)
            else:
                given = source.given.get(part)
                precision = torch.float32 if how.starts(part) == VAE else dtype
                own = _under(read_tensors(given, f"{PARTS}.{part}") if given and given.is_file() else tensors, (*how.starts(part), ""))
                if given and given.is_dir():
                    loaded[part] = _from_folder(part_class(name), given, f"{PARTS}.{part}", precision)
                else:
                    where = f"{PARTS}.{part}: {given}" if given else f"{SETTING}: {source.path}"
                    loaded[part] = _from_tensors(Part(part, name, folder, where), how, own, precision)
    return loaded


@dataclass(frozen=True)
class Part:
    """A network that is loaded: its class, the folder with all configurations, and what messages call the file of its weights."""

    name: str
    kind: str
    folder: Path
    where: str


def load_tokenizer(name: str, folder: Path) -> PreTrainedTokenizerBase:
    """That of the class `name`. Raises ParamsError where its vocabulary is not there: transformers would make one of special tokens alone,
    to which every word is unknown."""
    import transformers

    tokenizer = getattr(transformers, name).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if len(tokenizer) < _LETTERS:
        raise ParamsError(
            f"{SETTING}: {folder.resolve()} has no vocabulary in it. Download that folder again, with its tokenizer.json, or with "
            "the files that were before it (vocab.json and merges.txt, vocab.txt, spiece.model or tokenizer.model)."
        )
    return tokenizer


def part_class(name: str) -> Any:
    """Of diffusers, of transformers, or of diffusers' pipelines, which have the paper's BERT."""
    import diffusers
    import transformers
    from diffusers.pipelines import latent_diffusion

    found = getattr(diffusers, name, None) or getattr(transformers, name, None)
    return found or getattr(latent_diffusion.pipeline_latent_diffusion, name)


def beside(path: Path, part: str) -> Path:
    """The folder beside a single file that may have the configuration of a part."""
    return path.with_suffix("") / part


def _parts(source: Source, how: SingleFile) -> list[str]:
    """Those that the generator is made of; of the optional ones, all or none."""
    family = source.family
    if unknown := sorted(set(source.given) - {*family.parts, *family.optional}):
        raise ParamsError(f"{PARTS}: {family.name} has no part {unknown[0]}. It has {', '.join((*family.parts, *family.optional))}.")
    networks, shapes = [part for part in family.optional if _is_network(part)], tensor_shapes(source.path)
    declined = any(source.given.get(part, "") is None for part in networks)
    more = not declined and any(source.given.get(part) or _start(shapes, how.starts(part)) is not None for part in networks)
    return [*family.parts, *(family.optional if more else ())]


def _own_configuration(source: Source, part: str) -> Path | None:
    """The folder with that of a part which the user has given, or put beside the file."""
    places = [source.given.get(part), beside(source.path, part)]
    return next((place for place in places if place and place.is_dir() and any(place.glob("*.json"))), None)


def _is_network(part: str) -> bool:
    return part != "scheduler" and not part.startswith("tokenizer")


def _start(names: Mapping[str, Any], starts: tuple[str, ...]) -> str | None:
    return next((start for start in starts if any(name.startswith(start) for name in names)), None)


def _under(tensors: Tensors, starts: tuple[str, ...]) -> Tensors:
    """Those of one part, without the start of their names."""
    start = _start(tensors, starts) or ""
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _from_tensors(part: Part, how: SingleFile, tensors: Tensors, dtype: torch.dtype) -> torch.nn.Module:
    kind, gguf = part_class(part.kind), part.where.endswith(GGUF)
    if part.kind in MOVING:
        network = kind.from_config(kind.load_config(part.folder / part.name, local_files_only=True))
        weights, own = moving_vae_weights(unscaled(tensors, dtype)), network.state_dict()
        lacking = sorted(name for name in own if name not in weights or weights[name].shape != own[name].shape)
        if not lacking:
            network.load_state_dict(weights, strict=False)
    elif hasattr(kind, "from_single_file"):
        from diffusers.loaders.single_file_utils import SingleFileComponentError

        more: dict[str, Any] = {}
        if gguf:
            from diffusers import GGUFQuantizationConfig

            more["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
        else:
            tensors = unscaled(tensors, dtype)
        if part.kind == "UNet2DConditionModel":  # it looks for the names as they are in a whole file
            tensors = {f"{WHOLE}{name}": tensor for name, tensor in tensors.items()}
        tensors = dict.fromkeys(how.idle.get(part.name, ()), torch.empty(0)) | tensors
        where = {"config": str(part.folder), "subfolder": part.name, "local_files_only": True}
        try:
            network = kind.from_single_file(tensors, torch_dtype=dtype, **where, **more)
        except (SingleFileComponentError, KeyError, IndexError, NotImplementedError):
            # nothing of it is there, or not what the converter asks for; the last is torch's, for weights that have no content
            raise ParamsError(
                f"{part.where} lacks weights of its {part.name}, or its {part.name} is not built like the published one. Download it "
                "again, or give its folder in diffusers' layout, which says how it is built."
            ) from None
        lacking = sorted(name for name, weight in network.state_dict().items() if weight.is_meta)
    else:
        config = kind.config_class.from_pretrained(part.folder / part.name, local_files_only=True)
        tensors = {name: plain(tensor) for name, tensor in tensors.items()} if gguf else tensors
        weights = text_encoder_weights(unscaled(tensors, dtype), config, part.name in how.identity)
        report = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        network, info = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype, **report)
        lacking = lacking_of(info)
    if lacking:
        raise ParamsError(
            f"{part.where} lacks {len(lacking)} weights of its {part.name}, such as {lacking[0]}, or has them in another shape. "
            "Download it again, or another one."
        )
    return network


def _from_folder(kind: Any, folder: Path, setting: str, dtype: torch.dtype) -> torch.nn.Module:
    how: dict[str, Any] = {"torch_dtype": dtype} if hasattr(kind, "from_single_file") else {"dtype": dtype, "ignore_mismatched_sizes": True}
    network, info = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True, **how)
    if lacking := lacking_of(info):
        raise ParamsError(f"{setting}: the weights in {folder} do not fit its config.json; {lacking[0]} is missing or of another shape.")
    return network


def lacking_of(info: Mapping[str, Any]) -> list[str]:
    """Names of weights that a loader did not find, or found in another shape."""
    return sorted(key if isinstance(key, str) else key[0] for key in (*info["missing_keys"], *info.get("mismatched_keys", ())))


def _lacks(source: Source, how: SingleFile, without: list[str]) -> ParamsError:
    wanted = [f"{PARTS}.{part} to {how.needed.get(part, _WEIGHTS if _is_network(part) else _VOCABULARY)}" for part in without]
    return ParamsError(
        f"{SETTING}: {source.path.name} is {a(source.family)} without {' and '.join(without)}, which the package does not have. "
        f"Set {'; '.join(wanted)}."
    )
