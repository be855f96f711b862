"""Templates to HTML. Everything that comes from outside is escaped, and made fit for a page first."""

from __future__ import annotations

import json
import re
import shutil
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ti_pipeline.files import atomic, digest_file, digest_value

ROOT = Path(str(resources.files("ti_pipeline.gallery")))
STATIC = ROOT / "static"
SITE = "_site"  # beside the concepts' folders: no concept may be called so
# Scripts, styles and pictures of the site itself; what a page makes up in memory may be shown (blob:), never run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; object-src 'none'"
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(template: str, **values: Any) -> str:
    """A page of `templates/`; a value that it lacks is an error."""
    return _environment().get_template(template).render(policy=POLICY, stamp=design_digest()[:8], site=SITE, **values)


@lru_cache(maxsize=1)
def design_digest() -> str:
    """Over templates, style and scripts: a page made with others is made again."""
    files = sorted(path for folder in (ROOT / "templates", STATIC) for path in folder.rglob("*") if path.is_file())
    return digest_value({path.relative_to(ROOT).as_posix(): digest_file(path) for path in files})


def write_static(galleries: Path) -> None:
    """Style, script and the libraries with their licences, where they are not yet as they should be."""
    for source in STATIC.rglob("*"):
        target = galleries / SITE / source.relative_to(STATIC)
        if source.is_file() and not (target.is_file() and target.read_bytes() == source.read_bytes()):
            with atomic(target) as temporary:
                shutil.copyfile(source, temporary)


def printable(value: Any) -> Any:
    """Texts without control characters and lone surrogates, which HTML forbids; all else as it is."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def split_at(text: str, word: str) -> list[tuple[str, bool]]:
    """Pieces of a text and whether each is `word`, so that a page can set it off."""
    pieces = re.split(f"({re.escape(word)})", text) if word else [text]
    return [(piece, piece == word) for piece in pieces if piece]


def within(value: float, low: float = 0, high: float = 100) -> float:
    """The nearest value that a bar or a scale can show."""
    return min(max(value, low), high)


def on_scale(value: float) -> str:
    """A value on a scale from 0 to 100 in whole numbers; what lies beyond an end is more or less than it, and how much tells nothing."""
    shown = round(value)
    return ">\N{NARROW NO-BREAK SPACE}100" if shown > 100 else "<\N{NARROW NO-BREAK SPACE}0" if shown < 0 else str(shown)


def whole(value: float) -> str:
    """To the nearest whole number, with the sign that typographers use and no negative zero."""
    return str(round(value)).replace("-", "\N{MINUS SIGN}")


def inline(value: Any) -> Markup:
    """A JSON value for a data block: ASCII, and no sign in it that could end the block."""
    text = json.dumps(_printable_within(value), separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _printable_within(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _printable_within(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable_within(inner) for inner in value]
    return printable(value)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=printable, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"split_at": split_at, "inline": inline, "whole": whole, "within": within, "on_scale": on_scale}
    return environment
