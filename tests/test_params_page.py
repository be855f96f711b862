"""`docs/params.md`: every key of `params.yaml` with unit, default, range and effect, as the typed params have them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from ti_pipeline.params import Params
from ti_pipeline.params_page import page

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
DEFAULTS = yaml.safe_load(TEXT)
ROW = re.compile(
    r"^\| `(?P<key>[\w.]+)` \| (?P<default>.*?) \| (?P<range>.*?) \| (?P<unit>.*?) \| (?P<effect>.*) \|$",
    re.MULTILINE,
)
ROWS = {row["key"]: row for row in ROW.finditer(page(DEFAULTS))}


def fields(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        key = f"{before}{field.alias or name}"
        kinds = get_args(field.annotation) if isinstance(field.annotation, UnionType) else (field.annotation,)
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if section:
            yield from fields(section, f"{key}.")
        else:
            yield key, field


def leaves(tree: dict[str, Any], before: str = "") -> Iterator[str]:
    known = {key for key, _ in fields(Params)}
    for name, value in tree.items():
        yield from [f"{before}{name}"] if f"{before}{name}" in known else leaves(value, f"{before}{name}.")


def test_the_page_is_what_the_code_says():
    assert (ROOT / "docs" / "params.md").read_text(encoding="utf-8") == page(DEFAULTS), (
        "run `python -m ti_pipeline.params_page > docs/params.md`"
    )


def test_file_types_and_page_have_the_same_keys_in_the_same_order():
    assert list(leaves(DEFAULTS)) == [key for key, _ in fields(Params)] == list(ROWS)


@pytest.mark.parametrize(("key", "field"), list(fields(Params)))
def test_every_key_says_what_it_does_and_every_number_in_which_unit(key: str, field: Any):
    row = ROWS[key]
    assert row["effect"].endswith("."), "a description under the field in ti_pipeline/params.py"
    number = any(isinstance(kind, type) and kind in (int, float) for kind in (field.annotation, *getattr(field.annotation, "__args__", ())))
    assert bool(row["unit"]) == (number or re.search(r"\d to \d|[<>≤≥]", row["range"]) is not None), "[unit] first"


@pytest.mark.parametrize(
    ("key", "default", "allowed"),
    [
        ("seed", "`0`", "whole number"),
        ("generator.device", "`auto`", "`auto` or `cpu` or `mps` or `cuda` or `cuda:1`"),
        ("train.vectors", "`1`", "1 to 75"),
        ("train.pack", "`auto`", "`auto` or 1 to 1,000,000"),
        ("train.stop_ratio", "`0.25`", "> 0 and < 1"),
        ("train.clip_gradient", "`null`", "> 0 or `null`"),
        ("train.devices", "`[]`", "list of `cpu` or `mps` or `cuda` or `cuda:1`"),
        ("generate.negative_prompt", '`""`', "text"),
        ("generate.briefs", "in the file", "`object` and `style`: list of text"),
        ("validate.background", "`[255, 255, 255]`", "3 × 0 to 255"),
        ("versions.register", "`false`", "`true` or `false`"),
    ],
)
def test_ranges_are_those_that_the_types_check(key: str, default: str, allowed: str):
    assert (ROWS[key]["default"], ROWS[key]["range"]) == (default, allowed)


def test_choices_that_a_comment_of_the_file_lists_are_those_that_there_are():
    section, listed = "", []
    for line in TEXT.splitlines():
        section = line.partition(":")[0] if line[:1].isalpha() else section
        key, comment = f"{section}.{line.partition(':')[0].strip()}", line.partition("#")[2]
        allowed = re.findall(r"`([^`]+)`", ROWS[key]["range"]) if key in ROWS else []
        if " | " in comment and allowed:
            first, *others = re.sub(r" \([^)]*\)", "", comment).split(" | ")
            assert [first.split()[-1], *(other.split()[0] for other in others)] == allowed, f"params.yaml: {key}"
            listed.append(key)
    assert len(listed) >= 7
