"""`docs/params.md`, made from the typed params and the defaults in `params.yaml`.

python -m ti_pipeline.params_page > docs/params.md     in a clone
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ti_pipeline.params import Params

_UNIT = re.compile(r"\[(?P<unit>[^\]]+)\] ")
_OPENING = """\
# Every key of `params.yaml`

`params.yaml` is the only configuration. `--set section.key=value` changes a value for one call: `--set train.steps=1000`, or
`--set 'train.devices=[cuda:0, cuda:1]'` for a value that is not a plain one. A file that lacks a key, or has one that is not listed here,
is refused before anything starts.

The defaults suit the embedded miniature model. A stage does again what depends on a key that has changed, and nothing else. "The paper" is
[Gal et al. 2022](https://arxiv.org/abs/2208.01618). This page is made by `python -m ti_pipeline.params_page`.
"""


def page(defaults: dict[str, Any]) -> str:
    """The page in Markdown; `defaults` is the tree of `params.yaml`."""
    schema = Params.model_json_schema()
    sections = {name: _section(schema, about) for name, about in schema["properties"].items()}
    single = {name: about for name, about in schema["properties"].items() if not sections[name]}
    parts = [_OPENING, _table([_row(name, about, defaults[name]) for name, about in single.items()])]
    for name, section in sections.items():
        if section:
            rows = _rows(schema, name, section, defaults[name])
            parts.append(f"## {name}\n\n{_one_line(section['description'])}\n\n{_table(list(rows))}")
    return "\n".join(parts)


def _section(schema: dict[str, Any], about: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a key holds, or may hold; None for any other key."""
    names = [each["$ref"] for each in (about, *about.get("anyOf", ())) if "$ref" in each]
    return schema["$defs"][names[0].rsplit("/", 1)[1]] if names else None


def _rows(schema: dict[str, Any], prefix: str, section: dict[str, Any], defaults: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The section's keys, and those of the sections in it."""
    for key, about in section.get("properties", {}).items():
        if inner := _section(schema, about):
            yield from _rows(schema, f"{prefix}.{key}", inner, defaults.get(key) or {})
        else:
            yield _row(f"{prefix}.{key}", about, defaults[key])


def _table(rows: list[tuple[str, ...]]) -> str:
    head = ("Key", "Default", "Range", "Unit", "Effect")
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(key: str, about: dict[str, Any], default: Any) -> tuple[str, ...]:
    effect, unit = _one_line(about.get("description", "")), ""
    if found := _UNIT.match(effect):
        effect, unit = effect[found.end() :], "–" if found["unit"] == "1" else found["unit"]
    return f"`{key}`", _default(default), _range(about), unit, effect


def _default(value: Any) -> str:
    if isinstance(value, dict) and value:
        return "in the file"
    return f"`{value}`" if isinstance(value, str) and value else f"`{json.dumps(value, ensure_ascii=False)}`"


def _range(about: dict[str, Any]) -> str:
    """What may stand there, from the JSON schema of a field."""
    return " or ".join(dict.fromkeys(_ranges(about)))


def _ranges(about: dict[str, Any]) -> Iterator[str]:
    kind = about.get("type")
    if "anyOf" in about:
        for each in about["anyOf"]:
            yield from _ranges(each)
    elif choices := about.get("enum") or about.get("examples") or ([about["const"]] if "const" in about else []):
        yield from (f"`{choice}`" for choice in choices)
    elif "prefixItems" in about:
        yield f"{len(about['prefixItems'])} × {_range(about['prefixItems'][0])}"
    elif kind == "array":
        yield f"list of {_range(about['items'])}"
    elif kind == "object":
        names = about.get("propertyNames", {}).get("enum", ["name"])
        yield f"{' and '.join(f'`{name}`' for name in names)}: {_range(about['additionalProperties'])}"
    elif kind in ("integer", "number"):
        yield _bounds(about, "whole number" if kind == "integer" else "number")
    else:
        yield {"boolean": "`true` or `false`", "null": "`null`"}.get(kind or "", "text")


def _bounds(about: dict[str, Any], kind: str) -> str:
    low, high = about.get("minimum"), about.get("maximum")
    above, below = about.get("exclusiveMinimum"), about.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{low:,} to {high:,}"
    signs = (("≥", low), (">", above), ("≤", high), ("<", below))
    return " and ".join(f"{sign} {bound:,}" for sign, bound in signs if bound is not None) or kind


def _one_line(text: str) -> str:
    return " ".join(text.split())


def main() -> None:
    sys.stdout.write(page(yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
