"""What the overview says of a concept that fell out of a stage: a picture to know it by, what is wrong, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ti_pipeline.choices.verdicts import ID
from ti_pipeline.concepts.folder import list_folder, printable
from ti_pipeline.concepts.pictures import PictureError, open_picture, read_header
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file
from ti_pipeline.gallery.pictures import shown_size, write_webp
from ti_pipeline.params import Params
from ti_pipeline.stages.reasons import Reason
from ti_pipeline.workspace import Workspace

FOLDER = "_needs"  # beside the concepts' folders: no concept may be called so
TRIES = 6  # pictures of a set that are looked at for one that shows something
MEGAPIXELS = 50  # and none larger than this, so that the overview does not run out of memory
WHITE = (255, 255, 255)
LATER = "Once that is fixed, the next run takes it up."
_SENTENCE = re.compile(r"(?<=[.!?]) (?=[A-Z])")
_WORD = re.compile(r"[a-z]+(?=[ ,.'’]|$)(?!\.\w)")
_STAGES = {"validate": "its pictures and settings", "train": "training", "generate": "drawing", "rank": "ranking",
           "evaluate": "measuring", "gallery": "making its page"}  # fmt: skip


@dataclass(frozen=True)
class Need:
    """`shown` is a file beside the overview, empty where no picture of the set can be read; sizes in pixels."""

    concept: str
    stage: str
    sentence: str
    remedy: str
    shown: str
    width: int
    height: int


def read_needs(workspace: Workspace, params: Params, reasons: dict[str, list[Reason]]) -> list[Need]:
    """Every concept that fell out of a stage, with the first of its reasons; what earlier ones needed is swept away."""
    needs = []
    for concept, all_of_it in reasons.items():
        fell = next((reason for reason in all_of_it if not reason.ok), None)
        if fell:
            sentence, remedy = told(fell.reason)
            needs.append(Need(concept, _STAGES.get(fell.stage, fell.stage), sentence, remedy, *_picture(workspace, params, concept)))
    keep = {need.shown for need in needs}
    for path in (workspace.galleries / FOLDER).glob("*.webp"):
        if f"{FOLDER}/{path.name}" not in keep:
            path.unlink()
    return needs


def told(reason: str) -> tuple[str, str]:
    """What is wrong, and what to do about it: the sentences after the first."""
    first, *rest = _SENTENCE.split(reason.strip(), maxsplit=1)
    if _WORD.match(first):  # a file's name stays as it is
        first = first[:1].upper() + first[1:]
    return first if first.endswith((".", "!", "?")) else f"{first}.", rest[0] if rest else LATER


def _picture(workspace: Workspace, params: Params, concept: str) -> tuple[str, int, int]:
    """The set's first picture that can be decoded, as a file of the gallery with its size; an empty name when there is none."""
    edge = 2 * params.gallery.thumbnail
    for path in _files(workspace.concepts, concept):
        try:
            if read_header(path).megapixels > MEGAPIXELS:
                continue
            shown = workspace.galleries / FOLDER / f"{digest_file(path)[:ID]}-{edge}.webp"
            pixels = open_picture(path, WHITE)
            size = shown_size(pixels.size, edge)
            if not shown.is_file():
                write_webp(pixels, shown, size)
        except (OSError, PictureError):
            continue
        return f"{FOLDER}/{shown.name}", *size
    return "", 0, 0


def _files(folder: Path, concept: str) -> Iterator[Path]:
    """The first would-be pictures of a concept; its folder's name may not be a valid concept's."""
    try:
        found = next((path for path in folder.iterdir() if path.is_dir() and printable(path.name) == concept), None)
        files = list_folder(found).files if found else ()
    except (OSError, ConceptError):
        return
    yield from (entry.path for entry in files[:TRIES] if not entry.refusal)
