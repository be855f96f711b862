"""Where a generator's weights lie and what they are, known before any of them is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Literal

from ti_pipeline import params
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_value
from ti_pipeline.foreign import read_json, refuse_code, refuse_pickled_code
from ti_pipeline.generators.classify import family_of_file, family_of_folder, refuse_other_folder
from ti_pipeline.generators.family import Family, families
from ti_pipeline.generators.prediction import predicting
from ti_pipeline.generators.refusals import PARTS, SETTING, check_schedule
from ti_pipeline.model_files import check_whole, digest_config, digest_weights_file, is_hub_name

SINGLE_FILES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".gguf")
_WEIGHTS = (".safetensors", ".bin")
_HALF = ".fp16"  # in the names of the weights of a folder that has them in half precision
_NEEDED = "--include '*.json' --include '*.txt' --include '*/model.safetensors' --include '*/diffusion_pytorch_model.safetensors'"


@dataclass(frozen=True)
class Source:
    """A generator on this machine's disk; `path` is a folder in diffusers' layout or a single file.

    `given` are files and folders of parts that a single file lacks, by the names that diffusers has for them; None leaves out a part
    that the family can do without.
    """

    name: str
    path: Path
    layout: Literal["folder", "file"]
    given: Mapping[str, Path | None] = field(default_factory=dict, hash=False)
    prediction: str | None = None  # what a setting says that its own files do not

    @cached_property
    def family(self) -> Family:
        """Told by its files. Raises ParamsError that says what it is when no family can load it."""
        return family_of_folder(self.path) if self.layout == "folder" else family_of_file(self.path)

    @property
    def layers(self) -> bool:
        """Whether its denoiser has cross-attention layers."""
        return self.family.layers

    @property
    def diffuses(self) -> bool:
        """Whether it was trained to undo noise that a schedule adds."""
        return self.family.diffuses

    @cached_property  # a stage asks for it once a concept
    def digest(self) -> str:
        """SHA-256 over the bytes of every file that is loaded (weights, configurations, vocabulary), hexadecimal."""
        if self.layout == "folder":
            named = {file.relative_to(self.path).as_posix(): file for file in loaded_files(self.path, self.family.every)}
        else:
            named = {"model": self.path} | {file.relative_to(self.path.parent).as_posix(): file for file in _config_files(self.path)}
            for part, path in self.given.items():
                named |= {f"{PARTS}.{part}/{file.name if path.is_dir() else ''}": file for file in _files_of(path)} if path else {}
        with ThreadPoolExecutor() as pool:  # hashlib lets go of the GIL
            digests: dict[str, str | None] = dict(zip(named, pool.map(_digest, named.values()), strict=True))
        digests |= {f"{PARTS}.{part}": None for part, path in self.given.items() if path is None}
        return digest_value(digests | ({"prediction": self.prediction} if self.prediction else {}))

    @property
    def file_digest(self) -> str:
        """SHA-256 of the file that it is, hexadecimal; empty for a folder."""
        return digest_weights_file(self.path) if self.layout == "file" else ""

    def variant(self, part: str) -> str | None:
        """What diffusers calls the files of a part that has its weights in half precision only."""
        return "fp16" if any(_HALF in file.name for file in _weights(self.path / part)) else None


def find_source(settings: params.Generator, *, download: bool = True) -> Source:
    """Turn `generator.model` into files on disk; a hub name is downloaded unless it lies in the hub's cache, or not at all.

    Raises ParamsError that says what is missing, what to download and where to put it.
    """
    source = _found(settings, download)
    return predicting(source, settings.prediction) if settings.prediction else source


def _found(settings: params.Generator, download: bool) -> Source:
    model = settings.model
    if settings.parts and (Path(model).suffix not in SINGLE_FILES or Path(model).expanduser().is_dir()):
        raise ParamsError(f"{PARTS}: {model} is no single file, and a folder has all of its parts in it. Take {PARTS} out.")
    if settings.revision and (model == "miniature" or Path(model).expanduser().exists()):
        raise ParamsError(f"generator.revision is for a hub name, and {model} lies here as it is. Set it to null.")
    if model == "miniature":
        return _folder("miniature", Path(str(resources.files("ti_pipeline.miniature"))) / "generator")
    path = Path(model).expanduser()
    if path.is_dir():
        return _folder(path.resolve().name, path.resolve())
    if path.is_file():
        if path.suffix not in SINGLE_FILES:
            raise ParamsError(f"{SETTING}: {path} is no {_kinds(SINGLE_FILES)} file. Give one, or a folder in diffusers' layout.")
        if path.with_suffix("").is_dir():
            refuse_code(path.with_suffix(""), SETTING)
        given = {part: _given(part, Path(where) if where else None) for part, where in settings.parts.items()}
        return Source(path.stem, path.resolve(), "file", given)
    if path.suffix in SINGLE_FILES or "/" not in model or not is_hub_name(model):
        raise ParamsError(
            f"{SETTING}: there is nothing at {model}. Put a folder in diffusers' layout or a single-file checkpoint there, "
            "or give `miniature` or a hub name such as stable-diffusion-v1-5/stable-diffusion-v1-5."
        )
    return _hub(model, settings.revision, download)


def _given(part: str, where: Path | None) -> Path | None:
    """A file or folder of `generator.parts`; of a whole model's folder, that of the part. Raises ParamsError."""
    if where is None:
        return None
    setting, path = f"{PARTS}.{part}", where.expanduser().resolve()
    path = path / part if (path / part).is_dir() else path
    if not path.exists():
        raise ParamsError(f"{setting}: there is nothing at {path}.")
    if path.is_dir():
        refuse_code(path, setting)
    elif path.suffix not in SINGLE_FILES[:-1]:
        raise ParamsError(f"{setting}: {path} is no {_kinds(SINGLE_FILES[:-1])} file. Give one, or a folder in diffusers' layout.")
    for file in _files_of(path):
        if file.suffix in _WEIGHTS:
            check_whole(file, setting)
        if file.suffix == ".bin":
            refuse_pickled_code(file, setting)
    return path


def _kinds(suffixes: tuple[str, ...]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"


def _files_of(path: Path) -> list[Path]:
    return loaded_files(path.parent, (path.name,)) if path.is_dir() else [path]


def loaded_files(folder: Path, parts: Iterable[str]) -> list[Path]:
    """The files of these parts of a diffusers folder that loading reads.

    No pickles where safetensors lie beside them, and half precision only where there is no other.
    """
    files: list[Path] = []
    for part in sorted(parts):
        inside = sorted(file for file in (folder / part).glob("*") if file.is_file())
        files += [file for file in inside if file.suffix in (".json", ".txt", ".jinja", ".model")] + _weights(folder / part)
    return files


def _weights(part: Path) -> list[Path]:
    files = sorted(file for file in part.glob("*") if file.is_file() and file.suffix in _WEIGHTS)
    plain, half = ([f for f in files if f.name.count(".") == dots and (_HALF in f.name) == (dots == 2)] for dots in (1, 2))
    for kind in (plain, half):
        if kind:
            return [file for file in kind if file.suffix == ".safetensors"] or kind
    return []


def _lacking_pieces(part: Path) -> list[str]:
    """Files of weights that an index names and that are not there."""
    named = [read_json(index, SETTING).get("weight_map", {}) for index in part.glob("*.safetensors.index.json") if _HALF not in index.name]
    return sorted(name for name in {name for each in named for name in each.values()} if not (part / name).is_file())


def _folder(name: str, path: Path) -> Source:
    if name != "miniature":
        refuse_code(path, SETTING)
        refuse_other_folder(path)
    family = family_of_folder(path)
    missing = [part for part in family.parts if not any((path / part).glob("*.json"))]
    missing += [f"{part}/{name}" for part in family.every for name in _lacking_pieces(path / part)]
    missing += [f"{part}/*.safetensors" for part in family.weights if part not in missing and not _weights(path / part)]
    if missing:
        cause = (
            "The package is incomplete: install it again."
            if name == "miniature"
            else ("Download the whole model in diffusers' layout (`hf download OWNER/NAME --local-dir FOLDER`) and set it to FOLDER.")
        )
        raise ParamsError(f"{SETTING}: {path} lacks {', '.join(missing)}. {cause}")
    family.check(path)
    if family.diffuses:
        check_schedule(path)
    for file in loaded_files(path, family.every):
        if file.suffix in _WEIGHTS:
            check_whole(file, SETTING)
        if file.suffix == ".bin":
            refuse_pickled_code(file, SETTING)
    return Source(name, path, "folder")


def _hub(name: str, revision: str | None, download: bool) -> Source:
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        path = DiffusionPipeline.download(
            name,
            revision=revision,
            local_files_only=not download,
            safety_checker=None,
            feature_extractor=None,
            trust_remote_code=False,
        )
    except GatedRepoError:
        raise ParamsError(
            f"{SETTING}: {name} asks you to accept its licence. Accept it on https://huggingface.co/{name}, then `hf auth login`."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError, ValueError) as error:
        at = f" at revision {revision}" if revision else ""
        wanted = " ".join((f"hf download {name}", *([f"--revision {revision}"] if revision else []), _NEEDED, "--local-dir FOLDER"))
        raise ParamsError(
            f"{SETTING}: {name}{at} is neither in the hub's cache nor could it be downloaded ({_short(error)}). "
            f"Where there is a network, run `{wanted}`, copy FOLDER here and set generator.model to it."
        ) from None
    return _folder(name, Path(path))


def _short(error: Exception) -> str:
    first = str(error).strip().split("\n")[0].split(" (")[0]
    return first[:160] or type(error).__name__


def _config_files(checkpoint: Path) -> list[Path]:
    folder = checkpoint.with_suffix("")
    every = {part for family in families() for part in family.every}  # whose it is would have to be read from the checkpoint
    return [file for file in loaded_files(folder, every) if file.suffix not in _WEIGHTS] if folder.is_dir() else []


def _digest(path: Path) -> str:
    return digest_config(path, _weights(path.parent)) if path.name == "config.json" else digest_weights_file(path)
