"""Pictures that somebody has in hand, as a concept of a workspace."""

from __future__ import annotations

import filecmp
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

import yaml
from PIL import Image

from ti_pipeline.concepts.concept import suggest_slug
from ti_pipeline.concepts.folder import SETTINGS
from ti_pipeline.errors import ParamsError
from ti_pipeline.workspace import SLUG, Workspace

Source = str | Path | Iterable[str | Path | Image.Image]


class Says(TypedDict, total=False):
    """What a `concept.yaml` may say of a concept."""

    token: str
    initializer: str
    kind: Literal["object", "style"]
    captions: Mapping[str, str]
    briefs: list[str]
    vectors: int
    steps: int
    start_from: str
    templates: str
    owner: str
    license: str


def put(workspace: Workspace, source: Source, name: str | None, says: Mapping[str, Any], replace: bool) -> str:
    """Copy pictures into the workspace's folder of concepts, with what is said of them; returns the concept's slug.

    `source` is a folder, or pictures and their files; a concept of the workspace, by its name or its folder, is taken where it lies. What
    stands under that name with the same files stays. Raises ParamsError where others stand there and are not to be replaced.
    """
    if isinstance(source, str) and SLUG.fullmatch(source) and (workspace.concepts / source).is_dir() and not Path(source).is_dir():
        source = workspace.concepts / source
    folder, given = (Path(source).expanduser(), []) if isinstance(source, (str, Path)) else (None, [*source])
    if folder and not folder.is_dir():
        raise ParamsError(f"{folder}: there is no such folder, and no concept of that name in {workspace.concepts}.")
    slug = name or (suggest_slug(folder.resolve().name) if folder else "")
    if not SLUG.fullmatch(slug):
        raise ParamsError(f"the name {slug!r}: give 1 to 64 of a-z, 0-9, - and _, the first no sign, such as our-mascot.")
    home = workspace.concepts / slug
    if folder and folder.resolve() == home.resolve():
        if says:
            raise ParamsError(f"{', '.join(says)}: {home} is a concept of this workspace. Write them into its {SETTINGS}.")
        return slug
    half = workspace.concepts / f".{slug}-{secrets.token_hex(4)}"  # hidden: nobody takes it for a concept
    try:
        half.mkdir(parents=True)
        _copy([path for path in sorted(folder.iterdir()) if path.is_file()] if folder else _listed(given), half)
        _say(half / SETTINGS, says)
        _exchange(half, home, replace)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return slug


def _listed(given: Iterable[str | Path | Image.Image]) -> list[Path | Image.Image]:
    found = [Path(each).expanduser() if isinstance(each, (str, Path)) else each for each in given]
    if missing := [str(each) for each in found if isinstance(each, Path) and not each.is_file()]:
        raise ParamsError(f"{', '.join(missing[:3])}: no such file.")
    if not found:
        raise ParamsError("no pictures are given. A word is learnt from 3 to 5 or more.")
    return found


def _copy(pictures: Iterable[Path | Image.Image], folder: Path) -> None:
    for index, picture in enumerate(pictures):
        if isinstance(picture, Path):
            target = folder / picture.name
            shutil.copyfile(picture, target.with_name(f"{index:02d}-{picture.name}") if target.exists() else target)
        else:
            picture.save(folder / f"{index:02d}.png")


def _say(path: Path, says: Mapping[str, Any]) -> None:
    """Over what the file says already; a file that cannot be read stays for `validate` to name."""
    if not says:
        return
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError):
        return
    if isinstance(before, dict):
        path.write_text(yaml.safe_dump(before | dict(says), sort_keys=False, allow_unicode=True), encoding="utf-8")


def _exchange(half: Path, home: Path, replace: bool) -> None:
    if home.exists():
        if _same(half, home):
            return
        if not replace:
            raise ParamsError(f"{home} holds other pictures, or says other things of them. Give another name, or replace=True.")
        shutil.rmtree(home)
    half.rename(home)


def _same(one: Path, other: Path) -> bool:
    names = {path.name for path in one.iterdir()}
    return names == {path.name for path in other.iterdir()} and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)
