"""The tree of `params.yaml`, and what changes it for one call: `--with FILE` and `--set section.key=value`."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from ti_pipeline.errors import ParamsError


def read_tree(path: Path) -> dict[str, Any]:
    """The sections of a file. Raises ParamsError."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: there is no such file. Give the params with --params FILE (or run where a params.yaml is), other values with --with."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: expected sections such as `train:`, found {type(tree).__name__}.")
    return tree


def lay_over(tree: dict[str, Any], over: dict[str, Any]) -> None:
    """The keys of `over` into the tree; of tables in both, those within."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            lay_over(tree[key], value)
        else:
            tree[key] = value


def apply_override(tree: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    """Put the value of `section.key=value` into the tree of a file that `model` describes.

    A value is YAML, unless `model` wants a text there: that is taken as it stands. Raises ParamsError.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise ParamsError(f"--set {override}: expected section.key=value, with a key from docs/params.md.")
    *sections, last = key.strip().split(".")
    place: Any = tree
    for depth, name in enumerate((*sections, last)):
        if isinstance(place, dict) and depth == len(sections) and _takes_any(model, tuple(sections)):
            place.setdefault(name, None)
        if not isinstance(place, dict) or name not in place:
            known = f"Known: {', '.join(sorted(place))}." if isinstance(place, dict) else "There is nothing below it."
            raise ParamsError(f"--set {override}: there is no `{name}` here. {known} docs/params.md describes them.")
        parent, place = place, place[name]
    kinds = _kinds(model, (*sections, last))
    try:
        parent[last] = _text(text.strip(), None if type(None) in kinds else "") if str in kinds else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"--set {override}: the value is not valid YAML: {error}") from None


def _takes_any(model: type[BaseModel], keys: tuple[str, ...]) -> bool:
    """Whether what stands at these keys is a table whose own keys are the user's."""
    (kind, *_) = _kinds(model, keys)
    return get_origin(kind) is dict and get_args(kind)[0] is str


def _text(text: str, nothing: str | None) -> str | None:
    """A text as it stands: `#`, `~`, `:` and `no` are signs and words like any other. YAML's quotes may be around it."""
    if text in ("", "null"):
        return None if text else nothing
    if text[0] in "'\"":
        quoted = yaml.safe_load(text)
        return quoted if isinstance(quoted, str) else text
    return text


def _kinds(model: type[BaseModel], keys: tuple[str, ...]) -> tuple[Any, ...]:
    """The types that the value at these keys may have, without their bounds."""
    kind: Any = model
    for key in keys:
        if get_origin(kind) is dict:
            kind = get_args(kind)[1]
        else:
            fields = getattr(kind, "model_fields", {})
            kind = next((field.annotation for name, field in fields.items() if key in (name, field.alias)), Any)
    return get_args(kind) if isinstance(kind, UnionType) else (kind,)
