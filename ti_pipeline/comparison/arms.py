"""What is compared: the arms, made of `compare` and `train` and checked as `train` itself is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from ti_pipeline.comparison.settings import Own, Sweep, Table

if TYPE_CHECKING:
    from ti_pipeline.params import Params, Train


@dataclass(frozen=True)
class Arm:
    """One of the setups that are compared. `changes` are its own keys, of which those of `train` are in `train` already.

    With a `caption` nothing is learnt. `pictures` is how many of a set it learns from, None being all.
    """

    name: str
    train: Train
    changes: Table
    pictures: int | None
    guidance_scale: float
    caption: Literal["short", "long"] | None


def arms(params: Params) -> list[Arm]:
    """The baseline, then the setups, then the values of the sweeps; empty where nothing is to be compared.

    Raises ValueError, with the arm and the key, for one that cannot be.
    """
    section = params.compare
    if not (section.setups or section.sweeps):
        return []
    made = [_arm(params, section.baseline, "baseline", {})]
    made += [_arm(params, name, f"setups.{name}", table) for name, table in section.setups.items()]
    for name, sweep in section.sweeps.items():
        made += [_arm(params, arm, f"sweeps.{name}", table) for arm, table in swept(name, sweep)]
    names = [arm.name for arm in made]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"compare: {twice!r} is the name of two setups. Give each its own.")
    return made


def swept(name: str, sweep: Sweep) -> Iterator[tuple[str, Table]]:
    """The arms of a sweep: names and tables."""
    for value in sweep.values:
        yield f"{name} {value}", {**sweep.base, sweep.key: value}


def _arm(params: Params, name: str, where: str, table: Table) -> Arm:
    from ti_pipeline.params import Train

    own = {key: table[key] for key in table if key in Own.model_fields}
    others = {key: value for key, value in table.items() if key not in own}
    if "caption" in own and (idle := sorted(set(table) - {"caption", "guidance_scale"})):
        raise ValueError(f"compare.{where}: with a caption nothing is learnt, so {', '.join(idle)} can change nothing. Take it out.")
    tree = params.train.model_dump()
    for key, value in others.items():
        _check_key([*Train.model_fields, *Own.model_fields], key, where)
        _put(tree, key, value)
    try:
        said, train = Own.model_validate(own), Train.model_validate(tree) if others else params.train
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ValueError(f"compare.{where}: {f'{key}: ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from None
    guidance = params.compare.guidance_scale if said.guidance_scale is None else said.guidance_scale
    return Arm(name, train, table, said.pictures, guidance, said.caption)


def _put(tree: Table, key: str, value: Any) -> None:
    """Put a value at a key with dots; a table that is not set yet is made."""
    for place in (places := key.split("."))[:-1]:
        inner = tree.get(place)
        tree[place] = inner = dict(inner) if isinstance(inner, dict) else {}
        tree = inner
    tree[places[-1]] = value


def _check_key(known: list[str], key: str, where: str) -> None:
    if key.split(".")[0] not in known:
        near = get_close_matches(key, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else "Known are the keys of `train`, and pictures, guidance_scale and caption."
        raise ValueError(f"compare.{where}: {key}: there is no such key. {hint}")
