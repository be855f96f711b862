"""Which pictures of a concept can be used, and what is odd about them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ti_pipeline.concepts import looks
from ti_pipeline.concepts.concept import Concept
from ti_pipeline.concepts.folder import MASK, Entry, list_folder
from ti_pipeline.concepts.pictures import ALPHA, Header, PictureError, decode, open_mask, read_header
from ti_pipeline.files import digest_file
from ti_pipeline.params import Validate

Embed = Callable[[list[Image.Image]], np.ndarray]
_THUMBNAIL = 512  # pixels of the longer edge; enough for any CLIP
_AT_ONCE = 32  # pictures in memory
_LEAST_DETAIL = 0.06  # of 29 photographs the least has 0.079; moved by 3 % of their longer edge the most have 0.040
_FEWEST_FOR_OUTLIERS = 4  # among three, who is the odd one out is a matter of taste


@dataclass(frozen=True)
class Row:
    """One file of the set. `width` and `height` are upright pixels, of a refused picture those of its header.

    `digest` is of the file, `pixel_digest` of the decoded RGB; None where the file was not read so far.
    """

    file: str
    digest: str | None = None
    pixel_digest: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    orientation: int | None = None
    mode: str | None = None
    decision: Literal["accepted", "refused"] = "refused"
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Validation:
    """Rows sorted by file name, warnings about the set as a whole, and why it is quarantined (empty when it is not).

    `masks` are those of accepted pictures, by their names: file and digest; a picture's own where colours of it are transparent, which
    its mode does not tell. One that cannot be used is among the refused rows.
    """

    concept: str
    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    quarantine: str
    masks: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def accepted(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.decision == "accepted")

    @property
    def left_out(self) -> str:
        """Which files of a set that can be used cannot, and why; empty where there are none."""
        refused = [row for row in self.rows if row.decision == "refused"]
        if self.quarantine or not refused:
            return ""
        return f"{len(refused)} of its {len(self.rows)} files left out: {_some_reasons(refused)}"


@dataclass(frozen=True)
class _Seen:
    """What is compared of an accepted picture across the set."""

    row: Row
    hash: np.uint64
    blank: bool
    clear: bool


class _Eye:
    """Embeds pictures as they come, so that only a batch of them is in memory."""

    def __init__(self, embed: Embed | None) -> None:
        self._embed = embed
        self._waiting: list[Image.Image] = []
        self._done: list[np.ndarray] = []

    def see(self, image: Image.Image) -> None:
        """Takes the picture over and makes it small."""
        if self._embed is not None:
            image.thumbnail((_THUMBNAIL, _THUMBNAIL))
            self._waiting.append(image)
            if len(self._waiting) == _AT_ONCE:
                self._look(self._embed)

    def embeddings(self) -> np.ndarray | None:
        """[n, d], or None without a model or with fewer than four pictures."""
        if self._embed is None or _AT_ONCE * len(self._done) + len(self._waiting) < _FEWEST_FOR_OUTLIERS:
            return None
        if self._waiting:
            self._look(self._embed)
        return np.concatenate(self._done)

    def _look(self, embed: Embed) -> None:
        self._done.append(np.asarray(embed(list(self._waiting)), dtype=np.float64))
        self._waiting.clear()


def validate_concept(concept: Concept, settings: Validate, embed: Embed | None) -> Validation:
    """Decode every picture of the set; nothing that a file holds raises, it is refused with its reason instead.

    `embed` gives L2-normalised CLIP embeddings [n, d]; None leaves the search for outliers out. It is called with up to 32.
    Raises ConceptError when the folder cannot be read.
    """
    listing = list_folder(concept.folder)
    rows, seen, eye = [], [], _Eye(embed)
    for entry in listing.files:
        if concept.start and entry.name == concept.start.name:  # a word may come in a picture
            continue
        row, accepted = _examine(entry, settings, eye)
        rows.append(row)
        seen += [accepted] if accepted else []
    remarks = _compare(seen, settings, eye)
    rows = [replace(row, warnings=row.warnings + remarks.get(row.file, ())) for row in rows]
    own = {each.row.file: (each.row.file, each.row.digest or "") for each in seen if each.clear and each.row.mode not in ALPHA}
    beside, unusable = _masks(listing.masks, [each.row for each in seen])
    rows = sorted([*rows, *unusable], key=lambda row: row.file) if unusable else rows
    warnings = [f"subfolder {name}: not looked into; a set is one folder" for name in listing.subfolders]
    if concept.word and not rows:
        warnings.append("no pictures: how much like them the word is will not be measured")
    elif seen and len(seen) < settings.min_pictures:
        warnings.append(f"{_count(len(seen))} that can be used; {settings.min_pictures} or more make a better word")
    if len(seen) > settings.max_pictures:
        warnings.append(f"{_count(len(seen))}; more than {settings.max_pictures} rarely make a better word")
    can_be_used = seen or (concept.word and not rows)
    why = "" if can_be_used else _why_nothing(rows, listing.subfolders)
    return Validation(concept.slug, tuple(rows), tuple(warnings), why, own | beside)


def _masks(entries: Sequence[Entry], accepted: Sequence[Row]) -> tuple[dict[str, tuple[str, str]], list[Row]]:
    """File and digest of each mask by its picture's name, and rows of those that are none."""
    masks: dict[str, tuple[str, str]] = {}
    unusable = []
    for entry in entries:
        own = [row for row in accepted if Path(row.file).stem == entry.name[: -len(MASK)]]
        try:
            if reason := entry.refusal or _mask_refusal(entry, own):
                unusable.append(Row(entry.name, reasons=(reason,)))
            else:
                masks |= {row.file: (entry.name, digest_file(entry.path)) for row in own}
        except PictureError as error:
            unusable.append(Row(entry.name, reasons=(str(error),)))
        except OSError as error:
            unusable.append(Row(entry.name, reasons=(f"cannot be read: {error.strerror}",)))
    return masks, unusable


def _mask_refusal(entry: Entry, pictures: Sequence[Row]) -> str:
    """Why a mask is none of `pictures`, upright ones of the same name; empty where it is. Raises PictureError."""
    if not pictures:
        return f"a mask by its name, and there is no usable picture {entry.name[: -len(MASK)]} beside it; rename it if it is a picture"
    header = read_header(entry.path)
    for row in pictures:
        if sorted((header.width, header.height)) != sorted((row.width or 0, row.height or 0)):
            return f"a mask of {header.width} × {header.height} pixels, and {row.file} has {row.width} × {row.height}; make it as large"
    mask = open_mask(entry.path)
    for row in pictures:
        if mask.size != (row.width, row.height):
            return f"a mask of {mask.width} × {mask.height} pixels, and {row.file} has {row.width} × {row.height}; turn it"
    return "" if mask.getbbox() else "a black mask: nothing of its picture would count"


def _examine(entry: Entry, settings: Validate, eye: _Eye) -> tuple[Row, _Seen | None]:
    if entry.refusal:
        return Row(entry.name, reasons=(entry.refusal,)), None
    row = Row(entry.name)
    try:
        row = replace(row, digest=digest_file(entry.path))
        header = read_header(entry.path)
        row = replace(row, format=header.format, width=header.width, height=header.height, mode=header.mode)
        if refusal := _size_refusal(header, settings):
            return replace(row, reasons=(refusal,)), None
        decoded = decode(entry.path, settings.background)
    except PictureError as error:
        return replace(row, reasons=(str(error),)), None
    except OSError as error:
        return replace(row, reasons=(f"cannot be read: {error.strerror}",)), None
    image = decoded.image
    light = looks.luminance(image)
    warnings = [*decoded.warnings, *_frame_warnings(header)]
    if (ratio := max(image.size) / min(image.size)) > settings.max_aspect_ratio:
        warnings.append(f"aspect ratio {ratio:.1f} : 1; training sees a square of it, unless train.fit is buckets")
    if blank := looks.contrast(light) < settings.min_contrast:
        warnings.append("blank: nearly one colour throughout")
    elif looks.sharpness(light) < settings.min_sharpness:
        warnings.append(f"blurred: sharpness {looks.sharpness(light):.1f}, expected {settings.min_sharpness:g} or more")
    elif looks.detail(light) < _LEAST_DETAIL:
        warnings.append("blurred: hardly any fine detail in one direction, as after a movement")
    row = replace(
        row,
        pixel_digest=hashlib.sha256(f"{image.width}x{image.height}".encode() + image.tobytes()).hexdigest(),
        width=image.width,
        height=image.height,
        orientation=decoded.orientation,
        decision="accepted",
        warnings=tuple(warnings),
    )
    seen = _Seen(row, looks.perceptual_hash(image), bool(blank), decoded.clear)
    eye.see(image)
    return row, seen


def _size_refusal(header: Header, settings: Validate) -> str:
    size = f"{header.width} × {header.height} pixels"
    if header.megapixels > settings.max_megapixels:
        return f"larger than {settings.max_megapixels:g} megapixels: {size} are {header.megapixels:.1f}; make it smaller"
    if min(header.width, header.height) < settings.min_edge:
        return f"too small: {size}, the shorter edge must have {settings.min_edge} or more"
    return ""


def _frame_warnings(header: Header) -> list[str]:
    if header.frames is None:
        return [f"{header.format} with damage behind its first frame; only the first is used"]
    if header.frames > 1 and header.format != "MPO":  # a phone's second picture there is a preview or a depth map
        return [f"{header.format} with {header.frames} frames; only the first is used"]
    return ["GIF has 256 colours at most; the original would be better"] if header.format == "GIF" else []


def _compare(seen: list[_Seen], settings: Validate, eye: _Eye) -> dict[str, tuple[str, ...]]:
    """Warnings by file that only the whole set shows."""
    remarks: dict[str, tuple[str, ...]] = {}
    first: dict[str | None, str] = {}
    telling = []  # blank pictures have no low frequencies to compare, and copies have been named already
    for each in seen:
        original = first.setdefault(each.row.pixel_digest, each.row.file)
        if original != each.row.file:
            remarks[each.row.file] = (f"the same picture as {original}",)
        elif not each.blank:
            telling.append(each)
    for each, nearest in zip(telling, looks.nearest_earlier([each.hash for each in telling]), strict=True):
        if nearest and nearest[1] <= settings.near_duplicate_bits:
            other = telling[nearest[0]].row.file
            remarks[each.row.file] = (f"nearly the same picture as {other}: {nearest[1]} of 64 bits of the perceptual hash differ",)
    if (embeddings := eye.embeddings()) is not None:
        likeness = looks.likeness_to_others(embeddings)
        usual = float(np.median(likeness))
        unlike = (looks.outlier_scores(likeness) > settings.outlier_z) & looks.apart_from_all(embeddings)
        for index in unlike.nonzero()[0]:
            numbers = f"CLIP likeness to the others {likeness[index]:.2f}, usual in this set {usual:.2f}"
            file = seen[index].row.file
            remarks[file] = (*remarks.get(file, ()), f"look whether it belongs here: {numbers}; another background alone can do that")
    return remarks


def _why_nothing(rows: list[Row], subfolders: tuple[str, ...]) -> str:
    if rows:
        return f"none of its {len(rows)} files can be used: {_some_reasons(rows)}"
    if subfolders:
        return f"no pictures in the folder, only subfolders ({', '.join(subfolders[:3])}); put the pictures into the folder itself"
    return "no pictures in the folder"


def _some_reasons(refused: Sequence[Row]) -> str:
    return "; ".join(f"{row.file}: {row.reasons[0]}" for row in refused[:3]) + ("; …" if len(refused) > 3 else "")


def _count(pictures: int) -> str:
    return f"{pictures} picture{'s' if pictures != 1 else ''}"
