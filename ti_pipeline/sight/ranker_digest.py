"""The digest of a ranker that was loaded on this machine before, without loading it again.

It is over the weights as open_clip has them in memory. What says that it is still the same are the files that it was loaded from: their
names and sizes, and when they last changed, which the operating system keeps and nobody can set.
"""

from __future__ import annotations

from importlib import metadata, resources
from pathlib import Path
from typing import Any

from ti_pipeline import params
from ti_pipeline.remembered import remember, remembered

KIND = "ranker"  # in the names of what is kept


def ranker_folder(settings: params.Ranker) -> Path | None:
    """The folder of `ranker.model`; None for a name, whose architecture open_clip has."""
    if settings.model == "miniature":
        return Path(str(resources.files("ti_pipeline.miniature"))) / "ranker"
    folder = Path(settings.model).expanduser()
    return folder.resolve() if folder.is_dir() else None


def loaded_from(settings: params.Ranker) -> list[Any] | None:
    """What its digest depends on; None for weights that are open_clip's to find."""
    if folder := ranker_folder(settings):
        files = sorted(file for file in folder.iterdir() if file.is_file())
    elif settings.pretrained and (file := Path(settings.pretrained).expanduser()).is_file():
        files = [file.resolve()]
    else:
        return None
    named = "" if ranker_folder(settings) else settings.model
    return [metadata.version("open_clip_torch"), named, [[str(file), *_state(file)] for file in files]]


def known_digest(settings: params.Ranker) -> str | None:
    """None where it has to be loaded to know."""
    depends = loaded_from(settings)
    digest = remembered(KIND, depends) if depends else None
    return digest if isinstance(digest, str) else None


def keep_digest(depends: list[Any] | None, digest: str) -> None:
    """`depends` is what `loaded_from` said before it was loaded: what changes meanwhile is another ranker's."""
    if depends:
        remember(KIND, depends, digest)


def _state(file: Path) -> tuple[int, int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns
