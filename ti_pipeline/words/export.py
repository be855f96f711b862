"""A learnt word as it leaves for other tools: files of equal bytes for equal words, with all that is known about it inside."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, NotYet
from ti_pipeline.evaluation.report import concept_path, read_report
from ti_pipeline.files import atomic, digest_file, read_table
from ti_pipeline.generators.modelspec import architecture, models_of
from ti_pipeline.tensor_file import tensor_bytes
from ti_pipeline.words.diffusers_lines import by_hand, by_loader, numbered
from ti_pipeline.words.repository import repository
from ti_pipeline.words.tools import DIFFUSERS, Tool, tools_for
from ti_pipeline.words.word import ADAPTER, ENCODERS, ONLY
from ti_pipeline.workspace import Workspace

THUMBNAIL = 256  # pixels of the longer edge, as the metadata standard advises
DRAWN = 4  # pictures that show what it draws
_OUR_OWN = ("fingerprint",)  # what only the workspace can read
_PRIVATE = ("picture_digests",)  # names of files of the reference pictures


@dataclass(frozen=True)
class Export:
    """`rows` {text encoder: float32 [n, d]}. `name` is what its files are called, `about` what they say of where it comes from.

    `drawn` are prompts and PNGs of what it draws of them, the first the preview; `pictures` the reference pictures (WebP) where they go
    along; `report` the evaluation of this very word. Each may be missing. `hub` is the name of its repository there, where it has one.
    """

    name: str
    token: str
    kind: str
    rows: Mapping[str, np.ndarray]
    about: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    license: str = ""
    drawn: tuple[tuple[str, bytes], ...] = ()
    pictures: tuple[bytes, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    hub: str = ""

    def __len__(self) -> int:
        """Rows that the word stands for in a prompt."""
        return max(len(rows) for rows in self.rows.values())

    @property
    def widths(self) -> dict[str, int]:
        return {encoder: rows.shape[1] for encoder, rows in self.rows.items()}

    @property
    def file(self) -> str:
        return f"{self.name}.safetensors"

    @property
    def preview(self) -> bytes:
        return self.drawn[0][1] if self.drawn else b""

    @property
    def address(self) -> str:
        """What diffusers loads its repository by."""
        return self.hub or self.name

    @cached_property
    def tools(self) -> list[Tool]:
        """Those that can use it."""
        return tools_for(self.widths, self._tables)

    @cached_property
    def _tables(self) -> dict[str, str | None]:
        """Where diffusers' pipeline has its vocabularies, if it does not load such words by itself."""
        return json.loads(self.about.get("tables", "{}"))

    def typed(self, tool: Tool) -> str:
        """What stands for it in a prompt there."""
        token = numbered(self.token, len(self)) if tool.name == DIFFUSERS and self._tables else self.token
        return tool.typed.format(name=self.name, token=token)

    def line(self, tool: Tool) -> str:
        """What to copy: code that loads it, or what is typed."""
        if tool.name == DIFFUSERS and self._tables:
            lengths = {encoder: len(rows) for encoder, rows in self.rows.items()}
            return by_hand(self.token, lengths, self._tables, self.about.get("initializer", ""), self.file)
        if tool.name == DIFFUSERS:
            return by_loader(self.token, list(self.rows), self.file)
        return f'pipe.load_textual_inversion("{self.address}")' if tool.repository else self.typed(tool)

    def files(self, tool: Tool) -> dict[str, bytes]:
        """The files for a tool by their names, the weights last."""
        beside = {f"{self.name}.txt": self.text.encode()}
        if self.preview:
            beside[f"{self.name}.preview.png"] = self.preview
        if tool.repository:
            return {f"{self.name}/{name}": content for name, content in repository(self).items()}
        return beside | {self.file: self.weights(tool)}

    def weights(self, tool: Tool) -> bytes:
        """The word's file. Tools that read the same names of tensors have the same bytes."""
        return self.written({tool.keys[encoder]: rows for encoder, rows in self.rows.items()})

    @cached_property
    def text(self) -> str:
        """What people read about it."""
        lines = [f"{self.name}: {self.told}.", *(f"{key}: {value}" for key, value in self.rights.items()), ""]
        lines += [f"In {tool.title}: {self._how(tool)}" for tool in self.tools if not tool.repository]
        return "\n".join(lines) + "\n"

    @property
    def told(self) -> str:
        """What it is, in a sentence without its subject and its full stop."""
        of = self.about.get("generator") or models_of(self.widths)
        starts, steps = self.about.get("initializer"), self.about.get("steps")
        parts = [f"a learnt word ({self.kind}, {len(self)} vector{'s' * (len(self) > 1)})", *([f"for {of}"] if of else [])]
        parts += [f"starting from “{starts}”"] * bool(starts) + [f"in {steps} steps"] * bool(steps)
        return ", ".join(parts)

    @property
    def rights(self) -> dict[str, str]:
        return {key: value for key, value in (("Owner", self.owner), ("License", self.license)) if value}

    def _how(self, tool: Tool) -> str:
        """In one line of words, but for code that has functions."""
        loading = ""
        if tool.name == DIFFUSERS:
            line = self.line(tool)
            loading = f"run\n\n{indent(line, '    ')}\n\nand " if self._tables else f"{'; '.join(line.splitlines())}; "
        return f"{loading}write {self.typed(tool)} {tool.note}"

    def written(self, tensors: Mapping[str, np.ndarray]) -> bytes:
        """A safetensors file of it with all that is known."""
        metadata = {**self.about, "token": self.token, "format": "pt", **self._modelspec(tensors)}
        return tensor_bytes(tensors, metadata)

    def _modelspec(self, tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
        """https://github.com/Stability-AI/ModelSpec. Without a date, which would make equal words unequal files."""
        whole = hashlib.sha256(b"".join(array.tobytes() for _, array in sorted(tensors.items())))
        others = [tool for tool in self.tools if tool.name != DIFFUSERS and not tool.repository]
        said = {
            "sai_model_spec": "1.0.0",
            "architecture": (others and architecture(self.widths)) or "unknown/textual-inversion",
            "implementation": "diffusers",
            "title": self.name,
            "description": self.told,
            "author": self.owner,
            "license": self.license,
            "trigger_phrase": self.name if others else self.token,
            "usage_hint": "; ".join(f"{tool.title}: {self.typed(tool)}" for tool in self.tools if not tool.repository),
            "tags": f"textual-inversion, {self.kind}",
            "thumbnail": self._thumbnail,
            "hash_sha256": f"0x{whole.hexdigest()}",
        }
        return {f"modelspec.{key}": value for key, value in said.items() if value}

    @cached_property
    def _thumbnail(self) -> str:
        if not self.preview:
            return ""
        with Image.open(io.BytesIO(self.preview)) as picture:
            small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        small.save(packed := io.BytesIO(), format="JPEG", quality=85)
        return f"data:image/jpeg;base64,{base64.b64encode(packed.getvalue()).decode()}"


def export_of(workspace: Workspace, manifest: Manifest, name: str, with_pictures: bool = False) -> Export:
    """The concept's learnt word under a name. `with_pictures` also gives away the reference pictures and what their files are called.

    Raises ConceptError when it is not learnt, or its file is damaged.
    """
    path = workspace.embedding(manifest.slug)
    if not path.is_file():
        raise NotYet(manifest.slug, f"{path} is not there. Run `ti-pipeline train {manifest.slug}` first.")
    rows, provenance = read_rows(path, manifest.slug)
    digest, report = digest_file(path), read_report(concept_path(workspace, manifest.slug))
    left_out = {*_OUR_OWN, *(() if with_pictures else _PRIVATE)}
    about = {key: value for key, value in provenance.items() if key not in left_out and not key.startswith("modelspec.")}
    return Export(
        name=name,
        token=manifest.token,
        kind=manifest.kind,
        rows=rows,
        about=about,
        owner=manifest.owner or "",
        license=manifest.license or "",
        drawn=tuple(_drawn(workspace, manifest.slug, digest)),
        pictures=tuple(_encoded(manifest.open(picture)) for picture in manifest.pictures) if with_pictures else (),
        report=report if report and report.get("embedding") == digest else {},
    )


def read_rows(path: Path, concept: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The vectors of a concept's own word by text encoder, float32 [n, d], and its provenance. Raises ConceptError."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(ADAPTER)}  # noqa: SIM118
            return {(name if name in ENCODERS else ONLY): rows for name, rows in tensors.items()}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ConceptError(concept, f"{path}: damaged ({error}). Run `ti-pipeline train --force {concept}`.") from None


def _drawn(workspace: Workspace, concept: str, word: str) -> Iterator[tuple[str, bytes]]:
    """The best candidate of each of the first briefs, and its prompt; none that is of a word with another digest."""
    from ti_pipeline.candidates.files import RECIPE_KEY

    if not workspace.ranking(concept).is_file():
        return
    rows = sorted(read_table(workspace.ranking(concept)), key=lambda row: (row["brief_index"], row["place"]))
    best = [next(of_brief) for _, of_brief in groupby(rows, key=lambda row: row["brief_index"])]
    for row in best[:DRAWN]:
        try:
            content = (workspace.candidates(concept) / Path(row["file"]).name).read_bytes()
            with Image.open(io.BytesIO(content)) as picture:
                recipe = json.loads(picture.info.get(RECIPE_KEY, "{}"))
        except (OSError, ValueError):
            continue
        if hashlib.sha256(content).hexdigest() == row["digest"] and (not recipe or word in recipe["words"].values()):
            yield row["prompt"], content


def _encoded(picture: Image.Image) -> bytes:
    """Anew, without what a camera wrote about the place."""
    picture.thumbnail((1600, 1600))
    picture.save(packed := io.BytesIO(), format="WEBP", quality=90)
    return packed.getvalue()


def write_export(export: Export, tool: Tool, folder: Path) -> list[Path]:
    """Put the word's files for a tool into a folder, the weights last; equal ones are left as they are.

    Raises ConceptError, and writes nothing, for a tool that cannot use this word, and where a file of that name is another word's.
    """
    concept = export.about.get("concept", export.name)
    if tool not in export.tools:
        of = " and ".join(f"{width} ({encoder})" for encoder, width in export.widths.items())
        able = ", ".join(each.name for each in export.tools) or "none"
        raise ConceptError(concept, f"{tool.title} has no model for a word whose vectors have {of} numbers. Tools that do: {able}.")
    there = folder / (f"{export.name}/learned_embeds.safetensors" if tool.repository else export.file)
    if there.exists() and _owner(there) != concept:
        raise ConceptError(concept, f"{there} is there already and is not a word of {concept}. Give another --name, or move it away.")
    written = []
    for name, content in export.files(tool).items():
        path = folder / name
        if not (path.is_file() and path.read_bytes() == content):
            with atomic(path) as temporary:
                temporary.write_bytes(content)
        written.append(path)
    return written


def _owner(path: Path) -> str:
    """The concept whose word a file says it is; empty for another tool's file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("concept", "")
    except (OSError, SafetensorError):
        return ""
