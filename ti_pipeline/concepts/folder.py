"""What lies in a concept's folder, and what of it is meant to be a picture."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ti_pipeline.errors import ConceptError

SETTINGS = "concept.yaml"
CAPTIONS = {".txt", ".caption"}
MASK = "-mask.png"  # behind the name of the picture that it is the mask of
MOST_BYTES = 512_000_000  # 50 megapixels with 16 bits and alpha, uncompressed, are 400 MB
MOST_FILES = 1000  # a word is learnt from a handful; whoever has more has put an archive here
_LITTER = {
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "zbthumbnail.info"),  # Windows and its viewers
    *("$recycle.bin", "system volume information", "recycler"),
    *("icon\r", "__macosx", "network trash folder", "temporary items", "thevolumesettingsfolder"),  # macOS
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),  # Synology, QNAP
    *("lost+found", "thumbnails", "__pycache__"),
}
_LITTER_STARTS = (".", "~$", "@__", "@syno")
_LITTER_ENDS = ("~", ".tmp", ".temp", ".part", ".partial", ".crdownload", ".lnk", ".url", ".webloc", "@synoresource", "@synoeastream")
_TEXT_SUFFIXES = CAPTIONS | {".md", ".rst", ".yaml", ".yml", ".toml", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".html", ".log", ".ini"}
_SIDE_SUFFIXES = {".npz", ".npy", ".pt", ".pth", ".safetensors", ".ckpt", ".pkl", ".xmp", ".aae", ".thm", ".dvc", ".db", ".sqlite"}
_OBJECT = re.compile(r"(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}")
_TEXT_NAMES = {"readme", "license", "licence", "copying", "notice", "authors", "credits"}


@dataclass(frozen=True)
class Entry:
    """A file that is there to be a picture; `refusal` is set when it is not to be opened at all."""

    name: str
    path: Path
    refusal: str = ""


@dataclass(frozen=True)
class Listing:
    """A folder sorted by name. Hidden files, and what programs leave behind or keep beside pictures, are in none of them."""

    files: tuple[Entry, ...]
    texts: tuple[Entry, ...]
    subfolders: tuple[str, ...]
    masks: tuple[Entry, ...]


def list_folder(folder: Path) -> Listing:
    """Sort a folder's content into would-be pictures, their masks, texts and subfolders. Raises ConceptError when it cannot be read.

    Only the first `MOST_FILES` of the files are to be opened, and none above `MOST_BYTES`.
    """
    files: list[Entry] = []
    masks: list[Entry] = []
    texts, subfolders = [], []
    cached = cache(lambda: _dvc_cache(folder))  # asked for only where some link leads out of the set
    try:
        home = folder.resolve(strict=True)
        for path in sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name)):
            name = printable(path.name)
            if passed_over(name):
                continue
            if path.is_dir():
                subfolders.append(name)
            elif path.suffix.lower() in _TEXT_SUFFIXES or name.lower() in _TEXT_NAMES:
                texts.append(Entry(name, path, _refusal(path, home, cached)))
            elif path.suffix.lower() not in _SIDE_SUFFIXES:
                (masks if is_mask(name) else files).append(Entry(name, path, _refusal(path, home, cached) or _too_large(path)))
    except (OSError, RuntimeError) as error:
        raise ConceptError(printable(folder.name), f"the folder cannot be read: {error}. Check that it is there and readable.") from None
    return Listing(_first(files), tuple(texts), tuple(subfolders), tuple(masks))


def refused(folder: Path, name: str) -> str:
    """Why a file that is meant to lie in a concept's folder is not to be opened; empty where it may be."""
    if not os.path.lexists(folder / name):
        return "there is no such file in the folder"
    return _refusal(folder / name, folder.resolve(), lambda: _dvc_cache(folder))


def is_mask(name: str) -> bool:
    """Whether a file is a mask by its name, and no picture of the concept."""
    return len(name) > len(MASK) and name.lower().endswith(MASK)


def passed_over(name: str) -> bool:
    """Hidden files and folders, and what systems, file managers and downloads leave behind."""
    name = name.lower()
    return name in _LITTER or name.startswith(_LITTER_STARTS) or name.endswith(_LITTER_ENDS)


def printable(name: str) -> str:
    """A file name that every terminal, table and page takes, also when its bytes are no UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _first(files: list[Entry]) -> tuple[Entry, ...]:
    beyond = f"not read: the set has {len(files)} files, and the first {MOST_FILES:,} by name are enough; take some out"
    return (*files[:MOST_FILES], *(replace(entry, refusal=entry.refusal or beyond) for entry in files[MOST_FILES:]))


def _refusal(path: Path, home: Path, cached: Callable[[], Path | None]) -> str:
    if printable(path.name) != path.name:
        return "its name is not valid UTF-8; rename the file"
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return "a link that leads nowhere; put the file itself into the folder"
    if not target.is_relative_to(home) and not _is_cached(target, cached()):
        return "a link that leads outside the set; put the file itself into the folder"
    if not target.is_file():
        return "not a regular file"
    return ""


def _too_large(picture: Path) -> str:
    size = picture.stat().st_size
    return f"larger than {MOST_BYTES / 1e6:g} MB: it has {size / 1e6:,.0f}; make it smaller" if size > MOST_BYTES else ""


def _dvc_cache(folder: Path) -> Path | None:
    from ti_pipeline.versioning.cache import cache_above  # DVC takes its time to import

    return cache_above(folder)


def _is_cached(target: Path, cache: Path | None) -> bool:
    """Whether DVC itself made a link to `target` (`cache.type symlink`): by its content's name in the workspace's own cache.

    Any other link out of a set could show on a page what its author was not meant to see.
    """
    return cache is not None and target.is_relative_to(cache) and bool(_OBJECT.fullmatch(target.relative_to(cache).as_posix()))
