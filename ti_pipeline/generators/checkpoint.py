"""Single-file checkpoints (.safetensors, .ckpt, .pth, .gguf): their tensors, and how they are opened without running anything."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import refuse_pickled_code
from ti_pipeline.generators.refusals import SETTING
from ti_pipeline.model_files import Shapes, check_whole, safetensors_metadata, safetensors_shapes

GGUF = ".gguf"
# What trainers write beside the weights. Its classes are not needed, and stand-ins take their places.
_BESIDE = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy", "ldm", "typing", "collections")
_RESHAPED = "comfy.gguf.orig_shape."
WHOLE = "model.diffusion_model."  # starts the names of the denoiser's weights in files that have more than these
_WRAPPER = "state_dict"  # of a trainer's checkpoint, and the start of every name where one was written without unwrapping it
_WRAPPERS = (_WRAPPER, "model", "module", "params_ema", "params")  # in the order in which they are looked for


@contextmanager
def opened(path: Path, setting: str = SETTING) -> Iterator[None]:
    """While it is open, torch may read a .ckpt with the objects that trainers put beside the weights; none of them runs.

    The published `sd-v1-4.ckpt` has some. Raises ParamsError for a file that is not whole, or that holds other code.
    """
    import torch

    check_whole(path, setting)
    names = refuse_pickled_code(path, setting, _BESIDE) if path.suffix not in (".safetensors", GGUF) else []
    with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
        yield


def tensor_shapes(path: Path, setting: str = SETTING) -> Shapes:
    """Shapes by name, without reading a tensor. Raises ParamsError."""
    with opened(path, setting):
        if path.suffix == ".safetensors":
            return _unwrapped(safetensors_shapes(path, setting))
        if path.suffix == GGUF:
            reader = _gguf(path, setting)
            return {each.name: tuple(int(edge) for edge in reversed(each.shape)) for each in reader.tensors} | _reshaped(reader)
        return {name: tuple(getattr(value, "shape", ())) for name, value in _pickled(path, setting, map_location="meta").items()}


def read_tensors(path: Path, setting: str = SETTING) -> dict[str, Any]:
    """Tensors by name; those of .safetensors are read from the disk when they are used. Raises ParamsError."""
    with opened(path, setting):
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _unwrapped(load_file(path))
        if path.suffix == GGUF:
            from diffusers.models.model_loading_utils import load_gguf_checkpoint

            shapes, tensors = _reshaped(_gguf(path, setting)), load_gguf_checkpoint(str(path))
            return tensors | {name: plain(tensors[name]).reshape(shape) for name, shape in shapes.items()}
        return _pickled(path, setting, map_location="cpu")


def plain(tensor: Any) -> Any:
    """A tensor of a GGUF file as numbers."""
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    return dequantize_gguf_tensor(tensor)


def kept_bytes(path: Path, itemsize: int) -> int:
    """Bytes that the denoiser of a GGUF file takes when it is loaded: what is quantised stays so, a number of all else takes `itemsize`."""
    reader = _gguf(path, SETTING)
    reshaped, inside = _reshaped(reader), denoiser_shapes({each.name: () for each in reader.tensors})
    return sum(
        int(each.n_elements) * itemsize if each.name in reshaped or each.tensor_type.name in ("F32", "F16") else int(each.n_bytes)
        for each in reader.tensors
        if each.name.removeprefix(WHOLE) in inside
    )


def denoiser_shapes(shapes: Shapes) -> Shapes:
    """Those of the denoiser, by the names that the original code has in it; of a file with nothing else, all."""
    inside = {name.removeprefix(WHOLE): shape for name, shape in shapes.items() if name.startswith(WHOLE)}
    return inside or shapes


def blocks(shapes: Shapes, name: str) -> int:
    """How many there are of what is counted as `name`.0, `name`.1 …"""
    return len({each.split(".")[1] for each in shapes if each.startswith(f"{name}.")})


def metadata(path: Path) -> Mapping[str, str]:
    """What the writer of a .safetensors file says of it (keys of modelspec, of trainers); empty for other files."""
    return safetensors_metadata(path) if path.suffix == ".safetensors" else {}


def _stand_in(name: str) -> type:
    def nothing(self: object, *_: object, **__: object) -> None: ...

    return type(name.rpartition(".")[2], (), {"__init__": nothing, "__setstate__": nothing, "__setitem__": nothing})


def _pickled(path: Path, setting: str, map_location: str) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        raise ParamsError(
            f"{setting}: {path} is broken, or holds more than weights and is not read ({reason}). Take the model's .safetensors file."
        ) from None
    while isinstance(content, dict) and (inside := [content[name] for name in _WRAPPERS if isinstance(content.get(name), dict)]):
        content = inside[0]
    return _unwrapped(content) if isinstance(content, dict) else {}


def _unwrapped(named: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(f"{_WRAPPER}."): value for name, value in named.items() if isinstance(name, str)}


def _reshaped(reader: Any) -> Shapes:
    """The shapes of tensors that ComfyUI-GGUF has written in others, so that their rows fill whole blocks."""
    found = {name.removeprefix(_RESHAPED): field for name, field in reader.fields.items() if name.startswith(_RESHAPED)}
    return {name: tuple(int(field.parts[i][0]) for i in field.data) for name, field in found.items()}


def _gguf(path: Path, setting: str) -> Any:
    try:
        from gguf import GGUFReader
    except ImportError:
        raise ParamsError(f"{setting}: {path} is a GGUF file, which needs the package gguf: `pip install gguf`.") from None
    try:
        return GGUFReader(path)
    except Exception as error:  # it raises what numpy raises
        raise ParamsError(f"{setting}: {path} is no GGUF file, or only the beginning of one ({error}). Download it again.") from None
