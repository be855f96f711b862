"""What lies in a concept's folder, and what of it is meant to be a picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ti_pipeline.errors import ConceptError

SETTINGS = "concept.yaml"
_PASSED_OVER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx"}
_TEXT_SUFFIXES = {".txt", ".md", ".rst", ".yaml", ".yml", ".toml", ".json", ".jsonl", ".csv", ".tsv"}
_TEXT_NAMES = {"readme", "license", "licence", "copying", "notice", "authors", "credits"}


@dataclass(frozen=True)
class Entry:
    """A file that is there to be a picture; `refusal` is set when it is not to be opened at all."""

    name: str
    path: Path
    refusal: str = ""


@dataclass(frozen=True)
class Listing:
    """A folder sorted by name. Hidden files and what file managers leave behind are in none of the three."""

    files: tuple[Entry, ...]
    texts: tuple[Entry, ...]
    subfolders: tuple[str, ...]


def list_folder(folder: Path) -> Listing:
    """Sort a folder's content into would-be pictures, texts and subfolders. Raises ConceptError when it cannot be read."""
    files, texts, subfolders = [], [], []
    try:
        home = folder.resolve(strict=True)
        for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
            name = printable(path.name)
            if passed_over(name):
                continue
            if path.is_dir():
                subfolders.append(name)
            elif path.suffix.lower() in _TEXT_SUFFIXES or name.lower() in _TEXT_NAMES:
                texts.append(Entry(name, path, _refusal(path, home)))
            else:
                files.append(Entry(name, path, _refusal(path, home)))
    except (OSError, RuntimeError) as error:
        raise ConceptError(printable(folder.name), f"the folder cannot be read: {error}. Check that it is there and readable.") from None
    return Listing(tuple(files), tuple(texts), tuple(subfolders))


def passed_over(name: str) -> bool:
    """Hidden files and folders, and what file managers leave behind."""
    return name.startswith(".") or name.lower() in _PASSED_OVER


def printable(name: str) -> str:
    """A file name that every terminal, table and page takes, also when its bytes are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _refusal(path: Path, home: Path) -> str:
    if printable(path.name) != path.name:
        return "its name is not valid UTF-8; rename the file"
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere; put the file itself into the folder"
    if not target.is_relative_to(home):
        return "a link that leads outside the set; put the file itself into the folder"
    return "" if target.is_file() else "not a regular file"
