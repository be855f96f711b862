"""A learnt word as it leaves for other tools: files of equal bytes for equal words, with all that is known about it inside."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import SafetensorError, safe_open

from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.errors import ConceptError, NotYet
from ti_pipeline.files import atomic, digest_file, read_table
from ti_pipeline.generators.modelspec import architecture, models_of
from ti_pipeline.tensor_file import tensor_bytes
from ti_pipeline.words.tools import Tool, tools_for
from ti_pipeline.words.word import ADAPTER, ENCODERS, ONLY
from ti_pipeline.workspace import Workspace

THUMBNAIL = 256  # pixels of the longer edge, as the metadata standard advises
_OUR_OWN = ("fingerprint",)  # what only the workspace can read
_PRIVATE = ("picture_digests",)  # names of files of the reference pictures


@dataclass(frozen=True)
class Export:
    """`rows` {text encoder: float32 [n, d]}. `name` is what its files are called, `about` what they say of where it comes from.

    `preview` is a PNG of what it draws, `pictures` the reference pictures (WebP) where they go along; either may be missing.
    """

    name: str
    token: str
    kind: str
    rows: Mapping[str, np.ndarray]
    about: Mapping[str, str] = field(default_factory=dict)
    owner: str = ""
    license: str = ""
    preview: bytes = b""
    pictures: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        """Rows that the word stands for in a prompt."""
        return max(len(rows) for rows in self.rows.values())

    @property
    def widths(self) -> dict[str, int]:
        return {encoder: rows.shape[1] for encoder, rows in self.rows.items()}

    @property
    def file(self) -> str:
        return f"{self.name}.safetensors"

    @cached_property
    def tools(self) -> list[Tool]:
        """Those that can use it."""
        return tools_for(self.widths)

    def typed(self, tool: Tool) -> str:
        """What stands for it in a prompt there."""
        return tool.typed.format(name=self.name, token=self.token)

    def line(self, tool: Tool) -> str:
        """What to copy: code that loads it, or what is typed."""
        if tool.name == "diffusers":
            return self._loading()
        return f'pipe.load_textual_inversion("{self.name}")' if tool.repository else self.typed(tool)

    def files(self, tool: Tool) -> dict[str, bytes]:
        """The files for a tool by their names, the weights last."""
        beside = {f"{self.name}.txt": self.text.encode()}
        if self.preview:
            beside[f"{self.name}.preview.png"] = self.preview
        if tool.repository:
            return {f"{self.name}/{name}": content for name, content in self._repository().items()}
        return beside | {self.file: self.weights(tool)}

    def weights(self, tool: Tool) -> bytes:
        """The word's file. Tools that read the same names of tensors have the same bytes."""
        return self._written({tool.keys[encoder]: rows for encoder, rows in self.rows.items()})

    @cached_property
    def text(self) -> str:
        """What people read about it."""
        lines = [f"{self.name}: {self._told}.", *(f"{key}: {value}" for key, value in self._rights.items()), ""]
        lines += [f"In {tool.title}: {self._how(tool)}" for tool in self.tools if not tool.repository]
        return "\n".join(lines) + "\n"

    @property
    def _told(self) -> str:
        of = self.about.get("generator") or models_of(self.widths)
        starts, steps = self.about.get("initializer"), self.about.get("steps")
        parts = [f"a learnt word ({self.kind}, {len(self)} vector{'s' * (len(self) > 1)})", *([f"for {of}"] if of else [])]
        parts += [f"starting from “{starts}”"] * bool(starts) + [f"in {steps} steps"] * bool(steps)
        return ", ".join(parts)

    @property
    def _rights(self) -> dict[str, str]:
        return {key: value for key, value in (("Owner", self.owner), ("License", self.license)) if value}

    def _how(self, tool: Tool) -> str:
        """In one line of words."""
        loading = f"{'; '.join(self.line(tool).splitlines())}; " if tool.name == "diffusers" else ""
        return f"{loading}write {self.typed(tool)} {tool.note}"

    def _written(self, tensors: Mapping[str, np.ndarray]) -> bytes:
        metadata = {**self.about, "token": self.token, "format": "pt", **self._modelspec(tensors)}
        return tensor_bytes(tensors, metadata)

    def _modelspec(self, tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
        """https://github.com/Stability-AI/ModelSpec. Without a date, which would make equal words unequal files."""
        whole = hashlib.sha256(b"".join(array.tobytes() for _, array in sorted(tensors.items())))
        others = [tool for tool in self.tools if tool.name != "diffusers" and not tool.repository]
        said = {
            "sai_model_spec": "1.0.0",
            "architecture": architecture(self.widths) or "unknown/textual-inversion",
            "implementation": "diffusers",
            "title": self.name,
            "description": self._told,
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

    def _loading(self) -> str:
        """The lines for diffusers. A part is for the text encoder that the library has under the same number."""
        token = json.dumps(self.token, ensure_ascii=False)
        if list(self.rows) == [ONLY]:
            return f'pipe.load_textual_inversion("{self.file}", token={token})'
        lines = ["from safetensors.torch import load_file", f'word = load_file("{self.file}")']
        for number, encoder in zip(("", "_2", "_3"), sorted(self.rows, key=ENCODERS.index), strict=False):
            part = f'word["{encoder}"], token={token}'
            lines.append(f"pipe.load_textual_inversion({part}, text_encoder=pipe.text_encoder{number}, tokenizer=pipe.tokenizer{number})")
        return "\n".join(lines)

    def _repository(self) -> dict[str, bytes]:
        """A folder as in sd-concepts-library: what diffusers and InvokeAI load by its name."""
        import torch

        rows = self.rows[ONLY][0] if len(self) == 1 else self.rows[ONLY]  # a single vector is flat there
        torch.save({self.token: torch.from_numpy(rows.copy())}, packed := io.BytesIO())
        card = "\n".join(
            ["---", *self._card_header(), "---", f"# {self.name}", "", *(["![](preview.png)", ""] if self.preview else []), self.text]
        )
        return {
            "README.md": card.encode(),
            "token_identifier.txt": self.token.encode(),
            "type_of_concept.txt": self.kind.encode(),
            **({"preview.png": self.preview} if self.preview else {}),
            **{f"concept_images/{number}.webp": picture for number, picture in enumerate(self.pictures)},
            "learned_embeds.safetensors": self._written({self.token: rows}),
            "learned_embeds.bin": packed.getvalue(),
        }

    def _card_header(self) -> list[str]:
        named = [f"license_name: {json.dumps(self.license, ensure_ascii=False)}"] if self.license else []
        return ["library_name: diffusers", "license: other", *named, "tags:", "- textual_inversion", "- text-to-image"]


def export_of(workspace: Workspace, manifest: Manifest, name: str, with_pictures: bool = False) -> Export:
    """The concept's learnt word under a name. `with_pictures` also gives away the reference pictures and what their files are called.

    Raises ConceptError when it is not learnt, or its file is damaged.
    """
    path = workspace.embedding(manifest.slug)
    if not path.is_file():
        raise NotYet(manifest.slug, f"{path} is not there. Run `ti-pipeline train {manifest.slug}` first.")
    rows, provenance = read_rows(path, manifest.slug)
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
        preview=_preview(workspace, manifest.slug, path),
        pictures=tuple(_encoded(manifest.open(picture)) for picture in manifest.pictures) if with_pictures else (),
    )


def read_rows(path: Path, concept: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The vectors of a concept's own word by text encoder, float32 [n, d], and its provenance. Raises ConceptError."""
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys() if not name.startswith(ADAPTER)}  # noqa: SIM118
            return {(name if name in ENCODERS else ONLY): rows for name, rows in tensors.items()}, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ConceptError(concept, f"{path}: damaged ({error}). Run `ti-pipeline train --force {concept}`.") from None


def _preview(workspace: Workspace, concept: str, word: Path) -> bytes:
    """The best candidate of its first brief; nothing where none is ranked, or they are of another word."""
    from ti_pipeline.candidates.files import RECIPE_KEY

    if not workspace.ranking(concept).is_file():
        return b""
    rows = sorted(read_table(workspace.ranking(concept)), key=lambda row: (row["brief_index"], row["place"]))
    try:
        content = (workspace.candidates(concept) / Path(rows[0]["file"]).name).read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            recipe = json.loads(picture.info.get(RECIPE_KEY, "{}"))
    except (OSError, IndexError, ValueError):
        return b""
    of_another = recipe and digest_file(word) not in recipe["words"].values()
    return b"" if of_another or hashlib.sha256(content).hexdigest() != rows[0]["digest"] else content


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
