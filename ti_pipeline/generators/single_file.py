"""Loads a single-file checkpoint through the stock pipeline of its family. Nothing is read from a network.

Such a file has weights and no configuration. A folder beside it with its name (`dream.safetensors`, `dream/`) that holds the
configuration in diffusers' layout is taken; without one, the configuration that a family ships.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ti_pipeline.errors import ParamsError
from ti_pipeline.generators.checkpoint import opened
from ti_pipeline.generators.refusals import SETTING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from ti_pipeline.generators.source import Source


@dataclass(frozen=True)
class SingleFile:
    """How a family's single files are read: `index` is the `model_index.json` of its stock pipeline; `configure` writes the other
    configurations into a folder, or raises ParamsError that says what to put beside the file."""

    index: dict[str, Any]
    configure: Callable[[Path, Path], None]


def load_single_file(source: Source, how: SingleFile) -> DiffusionPipeline:
    """The stock pipeline with the file's weights, float32. Raises ParamsError."""
    with opened(source.path), configured(source, how) as configuration:
        return _load(source.path, configuration, how.index)


@contextmanager
def configured(source: Source, how: SingleFile) -> Iterator[Path]:
    """While it is open, a folder with all configurations of a generator, in diffusers' layout. Raises ParamsError."""
    if source.layout == "folder":
        yield source.path
        return
    path = source.path
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder)
        if (beside := path.with_suffix("")).is_dir():
            _take_configuration(path, beside, source.family.parts, configuration)
        else:
            how.configure(path, configuration)
        (configuration / "model_index.json").write_text(json.dumps(how.index), encoding="utf-8")
        yield configuration


def lacks_configuration(path: Path, what: str, parts: tuple[str, ...]) -> ParamsError:
    """For a file that cannot be read without the configuration beside it."""
    return ParamsError(
        f"{SETTING}: {path.name} is {what}. Put its configuration in diffusers' layout (the folders {', '.join(parts)}; no weights) "
        f"into {path.with_suffix('')}."
    )


def _take_configuration(path: Path, beside: Path, parts: tuple[str, ...], folder: Path) -> None:
    """The parts' configurations that lie beside a file; which classes they are is said here and not asked there."""
    if missing := [part for part in parts if not any((beside / part).glob("*.json"))]:
        raise ParamsError(f"{SETTING}: {beside}, the configuration of {path.name}, lacks {', '.join(missing)}.")
    for part in parts:
        (folder / part).symlink_to((beside / part).resolve(), target_is_directory=True)


def _load(path: Path, configuration: Path, index: dict[str, Any]) -> DiffusionPipeline:
    import diffusers

    left_out = {part: None for part, named in index.items() if named == [None, None]}
    pipeline = getattr(diffusers, index["_class_name"]).from_single_file(
        str(path), config=str(configuration), local_files_only=True, torch_dtype=torch.float32, **left_out
    )
    for part, network in pipeline.components.items():
        if isinstance(network, torch.nn.Module) and (lacking := sorted(n for n, weight in network.state_dict().items() if weight.is_meta)):
            raise ParamsError(
                f"{SETTING}: {path} lacks {len(lacking)} weights of its {part}, such as {lacking[0]}. Download it again, or another one."
            )
    return pipeline
