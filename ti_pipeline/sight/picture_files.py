"""Where models of transformers lie that look at pictures, and what they are, known before any of them is loaded."""

from __future__ import annotations

from pathlib import Path

from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_value
from ti_pipeline.foreign import read_json, refuse_code, refuse_pickled_code
from ti_pipeline.model_files import check_whole, digest_config, digest_weights_file, is_hub_name, is_path

CONFIG, PREPARATION = "config.json", "preprocessor_config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_LOADED = ("*.json", "*.safetensors", "*.bin")


def find_picture_model(model: str, setting: str) -> Path:
    """The folder of a model on this machine's disk; a hub name is downloaded unless it lies in the hub's cache.

    Raises ParamsError that says what is missing, what to download and where to put it; `setting` is the key that names the model.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return checked(folder.resolve(), setting, "Put one there that `hf download OWNER/NAME --local-dir` or `save_pretrained` wrote.")
    if is_path(model) or not is_hub_name(model):
        raise ParamsError(
            f"{setting}: there is no folder at {model}. Put a picture model there that transformers' AutoModel loads, "
            "or give a hub name such as facebook/dino-vits16."
        )
    return checked(_download(model, setting), setting, "Name a model that AutoModel loads, such as facebook/dino-vits16.")


def picture_digest(folder: Path) -> str:
    """SHA-256 over the bytes of every file that is loaded, hexadecimal. Needs nothing loaded."""
    files = _files(folder)
    return digest_value({file.name: digest_config(file, files) if file.name == CONFIG else digest_weights_file(file) for file in files})


def short_name(model: str) -> str:
    """What a model is called: of a path, the folder's own name."""
    return model if "/" not in model or not Path(model).expanduser().is_dir() else Path(model).expanduser().resolve().name


def _download(name: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_LOADED)))
    except Exception as error:  # offline, misspelt, gated, full disk: the remedy is the same
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ParamsError(
            f"{setting}: {name} is neither in the hub's cache nor could it be downloaded ({type(error).__name__}: {reason}). "
            f"Where there is a network, run `hf download {name} --local-dir FOLDER`, copy FOLDER here and set {setting} to it."
        ) from None


def checked(folder: Path, setting: str, advice: str) -> Path:
    """The folder, if it has everything that is loaded. Raises ParamsError."""
    lacks = [name for name in (CONFIG, PREPARATION) if not (folder / name).is_file()]
    lacks += [] if any((folder / name).is_file() for name in _WEIGHTS) else [_WEIGHTS[0]]
    if lacks:
        raise ParamsError(f"{setting}: {folder} lacks {', '.join(lacks)}. {advice}")
    refuse_code(folder, setting)
    read_json(folder / CONFIG, setting)
    for file in _files(folder):
        if file.suffix != ".json":
            check_whole(file, setting)
        if file.suffix == ".bin":
            refuse_pickled_code(file, setting)
    return folder


def _files(folder: Path) -> list[Path]:
    """Configurations and weights; pickles only where there are no safetensors that the loader takes before them."""
    safe = sorted(folder.glob("*.safetensors")) if any((folder / name).is_file() for name in _WEIGHTS[:2]) else []
    return sorted(folder.glob("*.json")) + (safe or sorted(folder.glob("*.bin")))
