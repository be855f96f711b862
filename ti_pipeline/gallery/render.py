"""Templates to HTML. Everything that comes from outside is escaped, and made fit for a page first."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ti_pipeline.files import digest_file, digest_value

ROOT = Path(str(resources.files("ti_pipeline.gallery")))
STYLE = ROOT / "static" / "gallery.css"
# nothing is loaded but pictures and the one style sheet, nothing runs, nothing is sent
POLICY = "default-src 'none'; img-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def render(template: str, **values: Any) -> str:
    """A page of `templates/`; a value that it lacks is an error."""
    return _environment().get_template(template).render(policy=POLICY, **values)


@lru_cache(maxsize=1)
def design_digest() -> str:
    """Over the templates and the style sheet: a page made with others is made again."""
    return digest_value({path.name: digest_file(path) for path in sorted([*(ROOT / "templates").iterdir(), STYLE]) if path.is_file()})


def printable(value: Any) -> Any:
    """Texts without control characters and lone surrogates, which HTML forbids; all else as it is."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def split_at(text: str, word: str) -> list[tuple[str, bool]]:
    """Pieces of a text and whether each is `word`, so that a page can set it off."""
    pieces = re.split(f"({re.escape(word)})", text) if word else [text]
    return [(piece, piece == word) for piece in pieces if piece]


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=printable, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["split_at"] = split_at
    return environment
