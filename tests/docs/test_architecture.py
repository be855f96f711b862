"""The package is as `docs/architecture.md` has it: its rooms, and what never imports or names what."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PACKAGE = ROOT / "ti_pipeline"
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for folder in ("ti_pipeline", "flows", "tasks") for path in (ROOT / folder).rglob("*.py")
)
ROOMS = re.findall(r"^\| `((?:ti_pipeline|flows|tasks)/[\w/]*)`", PAGE, re.MULTILINE)
LOOSE = [
    f"ti_pipeline/{name}" for line in re.findall(r"^\| (`\w+\.py`.*?) \|", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+\.py)`", line)
]
WAY = ("concepts", "inversion", "candidates", "ranking", "evaluation", "gallery", "comparison")  # rooms of the stages, in their order
STAGES = ("validate", "train", "generate", "rank", "evaluate", "gallery", "compare")


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


def strings(module: str) -> Iterator[str]:
    """Strings of a module's code, without its docstrings and comments."""
    said = {id(node.value) for node in ast.walk(tree(module)) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node.value


def texts(module: str) -> Iterator[str]:
    """Strings and names of a module's code."""
    yield from strings(module)
    for node in ast.walk(tree(module)):
        yield from (name for name in (getattr(node, key, None) for key in ("id", "attr", "name", "module")) if isinstance(name, str))


def inside(*folders: str) -> list[str]:
    return [module for module in MODULES if module.startswith(folders)]


def outside(modules: Iterable[str], *folders: str) -> list[str]:
    return [module for module in modules if not module.startswith(folders)]


def among(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_module_is_in_a_room_that_the_page_names():
    assert ROOMS and LOOSE
    homeless = [module for module in outside(MODULES, *ROOMS) if module not in (*LOOSE, "ti_pipeline/__init__.py")]
    assert not homeless, "name it in docs/architecture.md, or move it into a room"


def test_every_room_that_the_page_names_is_there():
    assert [name for name in (*ROOMS, *LOOSE) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{path.relative_to(DOCS)}" for path in sorted(DOCS.rglob("*.md")))]
)
def test_every_link_and_picture_of_a_page_is_there(page: str):
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target.strip()).exists(), target


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


@pytest.mark.parametrize("place", range(len(STAGES)))
def test_no_stage_imports_a_later_one(place: int):
    later = tuple(f"ti_pipeline.stages.{stage}" for stage in STAGES[place + 1 :])
    assert not [name for name in imports(f"ti_pipeline/stages/{STAGES[place]}.py") if among(name, later)]


def test_no_family_is_named_outside_of_generators():
    families = [path.stem for path in (PACKAGE / "generators" / "families").glob("[!_]*.py")]
    assert families
    named = re.compile("|".join(name.replace("_", "") for name in families))
    # In one it is a folder of diffusers' own, in the others what published numbers were measured with.
    others = outside(MODULES, "ti_pipeline/generators/", "ti_pipeline/foreign.py", "ti_pipeline/evaluation/protocols/")
    found = {module: text for module in others for text in texts(module) if named.search(re.sub(r"[\W_]", "", text).lower())}
    assert found == {}


def test_no_setup_is_named_outside_of_setups():
    setups = {path.stem for path in (PACKAGE / "inversion" / "setups").glob("[!_]*.py")} - {"setup"}
    assert setups
    modules = [f"ti_pipeline.inversion.setups.{name}" for name in setups]
    for module in outside(MODULES, "ti_pipeline/inversion/setups/"):
        assert not [name for name in imports(module) if among(name, modules)], module
        assert not [text for text in strings(module) if text in setups], module
