"""The package is as `docs/architecture.md` has it: its rooms, and what never imports or names what."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for folder in ("ti_pipeline", "flows", "tasks") for path in (ROOT / folder).rglob("*.py")
)
WAY = ("concepts", "inversion", "candidates", "ranking", "evaluation", "gallery")  # rooms of the stages, in their order


@cache
def tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


@cache
def imports(module: str) -> frozenset[str]:
    """Every name that a module imports, wherever it does; of `from a import b` both a and a.b."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
    return frozenset(found)


def inside(*folders: str) -> list[str]:
    return [module for module in MODULES if module.startswith(folders)]


def outside(modules: Iterable[str], *folders: str) -> list[str]:
    return [module for module in modules if not module.startswith(folders)]


def among(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_the_library_knows_neither_flows_nor_tasks():
    assert {module: name for module in inside("ti_pipeline/") for name in imports(module) if among(name, ("flows", "tasks"))} == {}


def test_prefect_is_for_flows_and_tasks_and_dvc_for_versioning():
    library = inside("ti_pipeline/")
    assert [module for module in library if any(among(name, ("prefect",)) for name in imports(module))] == []
    dvc = ("dvc", "dvc_data", "dvc_objects", "dvc_s3", "gto", "scmrepo")
    using = [module for module in MODULES if any(among(name, dvc) for name in imports(module))]
    assert using and outside(using, "ti_pipeline/versioning/") == []


@pytest.mark.parametrize("place", range(len(WAY)))
def test_no_room_imports_one_that_comes_later(place: int):
    later = tuple(f"ti_pipeline.{room}" for room in WAY[place + 1 :])
    modules = inside(f"ti_pipeline/{WAY[place]}/")
    assert modules
    assert {module: name for module in modules for name in imports(module) if among(name, later)} == {}
