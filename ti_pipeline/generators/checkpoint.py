"""Single-file checkpoints (.safetensors, .ckpt): which tensors they have, and how they are opened without running anything."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ti_pipeline.errors import ParamsError
from ti_pipeline.foreign import refuse_pickled_code
from ti_pipeline.generators.refusals import SETTING
from ti_pipeline.model_files import Shapes, check_whole, safetensors_shapes

# What trainers write beside the weights. Its classes are not needed, and stand-ins take their places.
_BESIDE = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "numpy", "ldm", "typing", "collections")


@contextmanager
def opened(path: Path) -> Iterator[None]:
    """While it is open, torch may read a .ckpt with the objects that trainers put beside the weights; none of them runs.

    The published `sd-v1-4.ckpt` has some. Raises ParamsError for a file that is not whole, or that holds other code.
    """
    import torch

    check_whole(path, SETTING)
    names = [] if path.suffix == ".safetensors" else refuse_pickled_code(path, SETTING, _BESIDE)
    with torch.serialization.safe_globals([(_stand_in(name), name) for name in names]):
        yield


def tensor_shapes(path: Path) -> Shapes:
    """Shapes by name, without reading a tensor. Raises ParamsError."""
    with opened(path):
        return safetensors_shapes(path, SETTING) if path.suffix == ".safetensors" else _pickled_shapes(path)


def _stand_in(name: str) -> type:
    def nothing(self: object, *_: object, **__: object) -> None: ...

    return type(name.rpartition(".")[2], (), {"__init__": nothing, "__setstate__": nothing, "__setitem__": nothing})


def _pickled_shapes(path: Path) -> Shapes:
    import torch

    try:
        content = torch.load(path, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:160]
        raise ParamsError(
            f"{SETTING}: {path} is broken, or holds more than weights and is not read ({reason}). Take the model's .safetensors file."
        ) from None
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    return {name: tuple(getattr(value, "shape", ())) for name, value in content.items() if isinstance(name, str)}
