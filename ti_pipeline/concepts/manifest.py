"""The manifest: what later stages believe about a concept. They need nothing else but the pictures that it names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ti_pipeline.concepts.concept import Concept
from ti_pipeline.concepts.pictures import ALPHA, PictureError, open_alpha, open_mask, open_picture
from ti_pipeline.concepts.start import Start
from ti_pipeline.concepts.templates import BY_KIND
from ti_pipeline.errors import ConceptError, NotYet
from ti_pipeline.files import digest_file, digest_value, write_json, write_table
from ti_pipeline.workspace import Workspace

if TYPE_CHECKING:
    from ti_pipeline.concepts.validation import Validation

_KINDS: Mapping[str, Literal["object", "style"]] = {"object": "object", "style": "style"}
SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("digest", pa.string()),
        pa.field("pixel_digest", pa.string()),
        pa.field("format", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("orientation", pa.int8()),
        pa.field("mode", pa.string()),
        pa.field("decision", pa.string(), nullable=False),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True)
class Mask:
    """Which parts of a picture count. Its file is the picture's own where it is the alpha channel."""

    file: str
    path: Path
    digest: str


@dataclass(frozen=True)
class Picture:
    """An accepted picture; `width` and `height` in upright pixels."""

    file: str
    path: Path
    digest: str
    pixel_digest: str
    width: int
    height: int
    caption: str | None
    mask: Mask | None


@dataclass(frozen=True)
class Manifest:
    """A validated concept.

    `digest` covers all that it says of the accepted pictures and the settings; `training_digest` leaves out the briefs, the human
    captions, the owner and the license, which change nothing of what is learnt.
    """

    slug: str
    token: str
    kind: Literal["object", "style"]
    initializer: str | None
    captions: Mapping[str, str]
    briefs: tuple[str, ...]
    owner: str | None
    license: str | None
    background: tuple[int, int, int]
    pictures: tuple[Picture, ...]
    fingerprint: str
    digest: str
    training_digest: str
    vectors: int | None = None
    steps: int | None = None
    human_captions: Mapping[str, str] = field(default_factory=dict)
    word: str | None = None
    """SHA-256 of the word that was learnt elsewhere and stands in its folder."""
    start: Start | None = None
    templates: tuple[str, ...] = ()
    """Its own neutral prompts; empty where those of its kind are taken."""

    @property
    def neutral(self) -> tuple[str, ...]:
        """What can be said of a picture without a caption, with `{}` in the word's place."""
        return self.templates or BY_KIND[self.kind]

    @property
    def masked(self) -> bool:
        """Whether one of its pictures has a mask."""
        return any(picture.mask for picture in self.pictures)

    def open(self, picture: Picture) -> Image.Image:
        """RGB pixels as they were validated. Raises ConceptError when the file is another one by now."""
        return self._opened(picture, lambda path: open_picture(path, self.background))

    def open_mask(self, picture: Picture) -> Image.Image | None:
        """What counts in a picture (L), as large as it; None where all of it does. Raises ConceptError as `open`."""
        if picture.mask is None:
            return None
        mask = self._opened(picture.mask, open_alpha if picture.mask.file == picture.file else open_mask)
        return None if mask.getextrema() == (255, 255) else mask

    def _opened(self, file: Picture | Mask, read: Callable[[Path], Image.Image]) -> Image.Image:
        try:
            if digest_file(file.path) == file.digest:
                return read(file.path)
            reason = "has changed since it was validated"
        except (OSError, PictureError) as error:
            reason = f"cannot be opened any more ({error})"
        raise ConceptError(self.slug, f"{file.file} {reason}. Run `ti-pipeline validate {self.slug}`.")


def write_manifest(
    workspace: Workspace, concept: Concept, validation: Validation, background: tuple[int, int, int], fingerprint: str
) -> Path:
    """Write the report for people and then, last, the manifest; returns the manifest's path."""
    rows = [{**asdict(row), "reasons": list(row.reasons), "warnings": list(row.warnings)} for row in validation.rows]
    about: dict[str, object] = {
        "concept": concept.slug,
        "token": concept.token,
        "kind": concept.kind,
        "initializer": concept.initializer,
        "captions": concept.captions,
        "briefs": list(concept.briefs),
        "owner": concept.owner,
        "license": concept.license,
        "vectors": concept.vectors,
        "steps": concept.steps,
    }
    if concept.human_captions:
        about["human_captions"] = concept.human_captions
    if validation.masks:
        about["masks"] = dict(validation.masks)
    if concept.word:
        about["word"] = concept.word
    if concept.start:
        about["start"] = concept.start.to_json()
    if concept.templates:
        about["templates"] = list(concept.templates)
    counts = {"accepted": len(validation.accepted), "refused": len(rows) - len(validation.accepted)}
    verdict = {"quarantine": validation.quarantine, "warnings": list(validation.warnings)}
    write_json(workspace.report(concept.slug), {**about, **counts, **verdict, "pictures": rows})
    texts = {key: value for key, value in about.items() if isinstance(value, str)}  # a text that is not set is left out
    keys = ("captions", "briefs", "vectors", "steps", "human_captions", "masks", "start", "templates")
    lists = {key: about[key] for key in keys if key in about} | {"background": background}
    metadata = texts | {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in lists.items()}
    metadata |= {"quarantine": validation.quarantine, "fingerprint": fingerprint}
    if validation.left_out:
        metadata["left_out"] = validation.left_out
    path = workspace.manifest(concept.slug)
    write_table(path, rows, SCHEMA, metadata)
    return path


def read_manifest(workspace: Workspace, slug: str) -> Manifest:
    """Raises ConceptError when there is no manifest yet, when it is damaged, and for a concept in quarantine."""
    path = workspace.manifest(slug)
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        about = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        if about["quarantine"]:
            raise NotYet(slug, f"in quarantine: {about['quarantine']}.", "quarantined")
        return _manifest(workspace.concepts / slug, about, table.to_pylist())
    except FileNotFoundError:
        raise NotYet(slug, f"it has not been validated: there is no {path}. Run `ti-pipeline validate {slug}`.") from None
    except (OSError, KeyError, ValueError) as error:  # pyarrow's own errors are ValueErrors too
        raise ConceptError(slug, f"{path}: damaged ({error}). Delete it and run `ti-pipeline validate {slug}`.") from None


def _manifest(folder: Path, about: dict[str, str], rows: list[dict]) -> Manifest:
    captions = json.loads(about["captions"])
    fields, masks = ("file", "digest", "pixel_digest", "width", "height"), json.loads(about.get("masks", "{}"))

    def mask(row: dict) -> Mask | None:
        if row["file"] in masks:
            file, digest = masks[row["file"]]
            return Mask(file, folder / file, digest)
        return Mask(row["file"], folder / row["file"], row["digest"]) if row["mode"] in ALPHA else None

    pictures = tuple(
        Picture(**{field: row[field] for field in fields}, path=folder / row["file"], caption=captions.get(row["file"]), mask=mask(row))
        for row in rows
        if row["decision"] == "accepted"
    )
    learnt = {
        "concept": about["concept"],
        "token": about["token"],
        "kind": about["kind"],
        "initializer": about.get("initializer"),
        "background": json.loads(about["background"]),
        "pictures": [(picture.file, picture.digest, picture.pixel_digest, picture.caption) for picture in pictures],
    }
    own = {key: json.loads(about.get(key, "null")) for key in ("vectors", "steps")}
    learnt |= {key: value for key, value in own.items() if value is not None}
    if masked := {picture.file: picture.mask.digest for picture in pictures if picture.mask}:
        learnt["masks"] = masked
    learnt |= {"word": about["word"]} if "word" in about else {}
    learnt |= {key: json.loads(about[key]) for key in ("start", "templates") if key in about}
    rest = {"briefs": json.loads(about["briefs"]), "owner": about.get("owner"), "license": about.get("license")}
    human = json.loads(about.get("human_captions", "{}"))
    return Manifest(
        slug=about["concept"],
        token=about["token"],
        kind=_KINDS[about["kind"]],
        initializer=learnt["initializer"],
        captions=captions,
        briefs=tuple(rest["briefs"]),
        owner=rest["owner"],
        license=rest["license"],
        background=tuple(learnt["background"]),
        pictures=pictures,
        fingerprint=about["fingerprint"],
        digest=digest_value(learnt | rest | ({"human_captions": human} if human else {})),
        training_digest=digest_value(learnt),
        human_captions=human,
        word=about.get("word"),
        start=Start.of_json(learnt["start"], folder) if "start" in learnt else None,
        templates=tuple(learnt.get("templates", ())),
        **own,
    )
