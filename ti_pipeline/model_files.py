"""Models on disk before they are loaded: where they lie, whether a file is whole, which tensors it has, its digest."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_file

Shapes = dict[str, tuple[int, ...]]
_DTYPES = {"F16": b"float16", "BF16": b"bfloat16", "F32": b"float32", "F64": b"float64"}
_SAYS_DTYPE = re.compile(rb'("(?:torch_)?dtype": ")(\w+)(")')
_HEADER = 2**28  # bytes that a header may have at most


def located(name: str, root: Path) -> str:
    """A path relative to the workspace `root`, or with `~`, as an absolute one; the name of a hub or a library stays as it is."""
    path = root / Path(name).expanduser()
    return str(path) if name != "miniature" and (path.exists() or is_path(name)) else name


def is_path(name: str) -> bool:
    """Whether a name can be nothing but a path."""
    return name.startswith((".", "~", "/")) or Path(name).is_absolute() or name.count("/") > 1


def is_hub_name(name: str) -> bool:
    """Whether a hub could have a model of that name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def check_whole(path: Path, setting: str) -> None:
    """Raises ParamsError for what lies there instead of weights: a pointer of Git LFS, a web page, a part of a file."""
    with path.open("rb") as file:
        start = file.read(512)
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(b"version https://git-lfs"):
        raise ParamsError(f"{setting}: {path} is a pointer of Git LFS, no weights. Run `git lfs pull` in that clone, or download it.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ParamsError(f"{setting}: {path} is a web page, not weights. Take the link that downloads the file itself, not its page.")
    if not start:
        raise ParamsError(f"{setting}: {path} is empty. Download it again.")
    if path.suffix == ".safetensors":
        _header(path, setting)
    elif path.suffix == ".gguf" and not start.startswith(b"GGUF"):
        raise ParamsError(f"{setting}: {path} is no GGUF file. Download it again.")
    elif start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise ParamsError(f"{setting}: {path} ends too early: it was not downloaded whole. Download it again.")


def safetensors_shapes(path: Path, setting: str) -> Shapes:
    """Shapes by name, from the header alone. Raises ParamsError for a file that is none or not whole."""
    return {name: tuple(entry["shape"]) for name, entry in _header(path, setting).items()}


def safetensors_metadata(path: Path) -> dict[str, str]:
    """What the writer of a safetensors file that is whole says of it, beside its tensors."""
    with path.open("rb") as file:
        about = json.loads(file.read(struct.unpack("<Q", file.read(8))[0])).get("__metadata__")
    return about if isinstance(about, dict) else {}


def digest_config(path: Path, weights: list[Path]) -> str:
    """SHA-256 of a configuration as its writer saved it, hexadecimal.

    Its `dtype` tells stock loaders what to load the weights in and is not asked here; what counts is what they are stored in.
    """
    content = path.read_bytes()
    stored = _stored_dtype(weights)
    if stored:
        content = _SAYS_DTYPE.sub(rb"\g<1>" + stored + rb"\g<3>", content, count=1)
    return hashlib.sha256(content).hexdigest()


def digest_weights_file(path: Path) -> str:
    """SHA-256 of the bytes, hexadecimal; read once in a process for as long as the file stays as it is."""
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digest(path: Path, size: int, changed: int) -> str:
    return digest_file(path)


def _stored_dtype(weights: list[Path]) -> bytes | None:
    for path in weights:
        if path.suffix == ".safetensors":
            try:
                entries = _header(path, "").values()
            except ParamsError:
                return None
            return next((_DTYPES[entry["dtype"]] for entry in entries if entry["dtype"] in _DTYPES), None)
    return None


def _header(path: Path, setting: str) -> dict[str, dict]:
    """Of a safetensors file, {name: {"dtype", "shape", "data_offsets"}}."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
        try:
            header: Any = json.loads(file.read(length)) if 0 < length <= min(_HEADER, size - 8) else None
            entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            shapes_are_shapes = all(isinstance(entry["shape"], list) and isinstance(entry["dtype"], str) for entry in entries.values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            end, shapes_are_shapes = 0, False
    if not shapes_are_shapes:
        cut = f" It says that its header has {length} bytes, and there are {size}." if 0 < length <= _HEADER else ""
        raise ParamsError(f"{setting}: {path} is no safetensors file, or only the beginning of one.{cut} Download it again.")
    if size < 8 + length + end:
        raise ParamsError(
            f"{setting}: {path} ends too early: {size:,} of {8 + length + end:,} bytes. It was not downloaded whole: download it again."
        )
    return entries
