"""The dataset of a protocol's authors, laid out as folders of concepts and files of prompts."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.protocols.protocol import Protocol
from ti_pipeline.files import write_text

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def lay_out(protocol: Protocol, source: Path, concepts: Path, prompts: Path) -> list[str]:
    """Copy the pictures of every set in `source` to a folder in `concepts`, with its class words as the initializer; its own prompts go
    to `prompts`. A folder that is there already stays as it is. Returns the slugs.

    Raises ParamsError where the dataset is not there or is in another layout.
    """
    slugs = []
    for each in protocol.sets(source):
        slug = re.sub(r"[^a-z0-9_-]+", "-", each.slug.lower()).strip("-_")[:64]
        files = [path for path in each.pictures if path.suffix.lower() in PICTURES]
        if not files:
            continue
        slugs.append(slug)
        if each.prompts:
            write_text(prompts / f"{slug}.txt", "\n".join(each.prompts) + "\n")
        if (concepts / slug).exists():
            continue
        unfinished = concepts / f".{slug}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for path in files:
            shutil.copy(path, unfinished)
        write_text(unfinished / "concept.yaml", yaml.safe_dump({"initializer": each.class_words, "kind": each.kind}))
        unfinished.rename(concepts / slug)
    if not slugs:
        raise ParamsError(f"{source}: no pictures of {protocol.name} in it. Download the dataset of its authors and give its folder.")
    return slugs
