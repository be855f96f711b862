"""What `dvc.yaml` says of the stages: it follows from what they declare, and from what their modules import.

In a clone the code and the embedded models are inputs of a stage, file by file. A workspace that is no clone has none of these files: there
the version of the installed package stands for them, behind each command, which DVC compares too.

python -m ti_pipeline.stages.declared dvc.yaml    write its stages anew
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ti_pipeline import __version__
from ti_pipeline.files import write_text
from ti_pipeline.stages.stage import Stage
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import CHOICES, CONCEPTS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "ti_pipeline"
SHARED = ("ti_pipeline.stages.run",)  # what runs every stage
# Packages whose modules are found by looking, not by name.
FOUND = ("ti_pipeline.generators.families", "ti_pipeline.inversion.setups")
# They only bring together what stages declare: they are code of each, and what they import is not.
JOINTS = ("ti_pipeline.models", "ti_pipeline.stages.table")


@dataclass(frozen=True)
class Model:
    """A model of a run: the keys of `params.yaml` and the modules that load it, and where the embedded one lies."""

    sections: tuple[str, ...]
    modules: tuple[str, ...]
    folder: str


_GENERATOR = "ti_pipeline/miniature/generator"
MODELS = {
    "generator": Model(("generator",), ("ti_pipeline.generators.load",), _GENERATOR),
    "reader": Model(("generator",), ("ti_pipeline.generators.reader", "ti_pipeline.generators.source"), _GENERATOR),
    "ranker": Model(
        ("ranker", "generator.device"), ("ti_pipeline.sight.ranker", "ti_pipeline.sight.likeness"), "ti_pipeline/miniature/ranker"
    ),
    "judge": Model(("judge", "generator.device"), ("ti_pipeline.sight.judge",), "ti_pipeline/miniature/judge"),
}


def entry(stage: Stage, *, clone: bool = True) -> dict[str, Any]:
    """The stage in `dvc.yaml` of a clone, or of another workspace. A concept that it cannot take ends it with status 1, and the chain
    goes on with the others."""
    inputs = [_address(name) for name in stage.reads]
    own = [*(MODELS[name].folder for name in stage.models), *_cover(code(stage))] if clone else []
    return {
        "desc": stage.about,
        "cmd": f"ti-pipeline {stage.name} || test $? -eq 1{'' if clone else f'  # {__version__}'}",
        "deps": sorted({*inputs, *own}),
        "params": sections(stage),
        "outs": [{f"artifacts/{stage.output}": {"persist": True}}],
    }


def sections(stage: Stage) -> list[str]:
    """Keys of `params.yaml` that the stage and its models read; none that is within another."""
    named = {*stage.sections, *(key for name in stage.models for key in MODELS[name].sections)}
    return sorted(key for key in named if key.split(".")[0] == key or key.split(".")[0] not in named)


def code(stage: Stage) -> set[Path]:
    """Files of the package that the stage's module imports, inside of functions too, and those that load its models."""
    own = inspect.getmodule(stage.plan)
    models = [module for name in stage.models for module in MODELS[name].modules]
    return _reached([own.__name__ if own else "", *SHARED, *models])


def _address(name: str) -> str:
    return {CONCEPTS: "${concepts.folder}", CHOICES: CHOICES}.get(name, f"artifacts/{name}")


def _reached(modules: Iterable[str]) -> set[Path]:
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path is None or path in found:
            continue
        found.add(path)
        waiting.append(name.rpartition(".")[0])  # of a package, what its __init__ imports
        if name not in JOINTS:
            waiting += _imported(path)
        if name in FOUND:
            waiting += [f"{name}.{module.stem}" for module in path.parent.glob("*.py")]
    packages = {path.parent for path in found if path.name != "__init__.py"}
    return found | {path for package in packages for path in _data(package)}


def _file(name: str) -> Path | None:
    """The file of a module of this package; None for a name in one, or in another's."""
    if name.partition(".")[0] != PACKAGE:
        return None
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def _imported(path: Path) -> tuple[str, ...]:
    """Names that a file imports, but for those that only its annotations name."""
    names = []
    for node in _nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    if isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING":
        children: Iterable[ast.AST] = tree.orelse
    else:
        yield tree
        children = ast.iter_child_nodes(tree)
    for child in children:
        yield from _nodes(child)


def _data(package: Path) -> Iterator[Path]:
    """What lies in a package beside its modules, such as templates; no weights, which are a model's."""
    for folder in package.iterdir():
        if folder.is_dir() and not folder.name.startswith("__") and not any(folder.rglob("*.py")):
            yield from _files(folder)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _cover(files: set[Path]) -> set[str]:
    """The files as paths in the repository; a folder in the place of all that are in it."""

    def covered(folder: Path) -> Iterator[Path]:
        inside = set(_files(folder))
        if inside and inside <= files:
            yield folder
            return
        for path in folder.iterdir():
            if path.is_dir():
                yield from covered(path)
            elif path in files:
                yield path

    return {path.relative_to(ROOT).as_posix() for path in covered(ROOT / PACKAGE)}


def with_stages(text: str, *, clone: bool) -> str:
    """A `dvc.yaml` with the stages as the table has them; what stands around them stays."""
    before, _, rest = text.partition("stages:\n")
    after = rest[rest.index("\nmetrics:") :] if "\nmetrics:" in rest else ""
    entries = {name: entry(stage, clone=clone) for name, stage in STAGES.items()}
    stages = [yaml.safe_dump({name: each}, sort_keys=False, width=200, allow_unicode=True) for name, each in entries.items()]
    indented = "\n".join("".join(f"  {line}\n" for line in stage.splitlines()) for stage in stages)
    return f"{before}stages:\n{indented}{after}"


def write(path: Path) -> None:
    """Write the stages of a `dvc.yaml` anew: of this clone, where it lies at its top, else of another workspace."""
    write_text(path, with_stages(path.read_text(encoding="utf-8"), clone=path.resolve().parent == ROOT))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
