"""`--set section.key=value`: one value of `params.yaml` for one call."""

from __future__ import annotations

from types import UnionType
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel

from ti_pipeline.errors import ParamsError


def apply_override(tree: dict[str, Any], override: str, model: type[BaseModel]) -> None:
    """Put the value of `section.key=value` into the tree of a file that `model` describes.

    A value is YAML, unless `model` wants a text there: that is taken as it stands. Raises ParamsError.
    """
    key, equals, text = override.partition("=")
    if not equals:
        raise ParamsError(f"--set {override}: expected section.key=value, with a key from docs/params.md.")
    *sections, last = key.strip().split(".")
    place: Any = tree
    for name in (*sections, last):
        if not isinstance(place, dict) or name not in place:
            known = f"Known: {', '.join(sorted(place))}." if isinstance(place, dict) else "There is nothing below it."
            raise ParamsError(f"--set {override}: there is no `{name}` here. {known} docs/params.md describes them.")
        parent, place = place, place[name]
    kinds = _kinds(model, (*sections, last))
    try:
        parent[last] = _text(text.strip(), None if type(None) in kinds else "") if str in kinds else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"--set {override}: the value is not valid YAML: {error}") from None


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
