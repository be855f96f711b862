"""`params.yaml`, typed: each section is described in its own room. Every key has its default in the file and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from ti_pipeline.candidates.settings import Generate
from ti_pipeline.comparison.arms import arms
from ti_pipeline.comparison.settings import Compare
from ti_pipeline.concepts.limits import Validate
from ti_pipeline.concepts.texts import WORD, check_brief, cut
from ti_pipeline.errors import ParamsError
from ti_pipeline.evaluation.settings import Evaluate, Protocol
from ti_pipeline.gallery.settings import Gallery
from ti_pipeline.generators.settings import Generator
from ti_pipeline.inversion.settings import Train
from ti_pipeline.overrides import apply_override, lay_over, read_tree
from ti_pipeline.ranking.settings import Rank
from ti_pipeline.section import Section
from ti_pipeline.sight.settings import Judge, Ranker
from ti_pipeline.versioning.settings import Inbox, Publish, Storage, Versions

_MISSING = "is missing. Copy it from a params.yaml of this version, which `ti-pipeline init FOLDER` writes"


class Concepts(Section):
    """Where the image sets are."""

    folder: str
    """Folder with one folder of pictures per concept. A relative path starts in the workspace."""


class Params(Section):
    """All of `params.yaml`."""

    seed: int
    """[1] What every random draw derives from, together with the concept. The same seed and settings give the same words and pictures."""
    concepts: Concepts
    generator: Generator
    ranker: Ranker
    judge: Judge
    validate_: Validate = Field(alias="validate")
    train: Train
    generate: Generate
    rank: Rank
    evaluate: Evaluate
    protocol: Protocol
    gallery: Gallery
    compare: Compare
    storage: Storage
    versions: Versions
    inbox: Inbox
    publish: Publish

    @model_validator(mode="after")
    def _nothing_is_drawn_as_letters(self) -> Params:
        alone = {
            "evaluate.prompts": self.evaluate.prompts,
            "train.compromise_prompts": self.train.compromise_prompts,
            "train.preview_prompt": {kind: [prompt] for kind, prompt in self.train.preview_prompt.items()},
        }
        for key, texts in {"generate.briefs": self.generate.briefs, **alone}.items():
            for kind, briefs in texts.items():
                for brief in briefs:
                    try:
                        check_brief(brief)
                    except ValueError as error:
                        raise ValueError(f"{key}.{kind}: {error}") from None
        for key, texts in alone.items():
            for prompt in (prompt for prompts in texts.values() for prompt in prompts):
                if found := WORD.search(prompt):
                    why = "is evaluated by itself and against the prompt alone, which knows no other learnt word"
                    raise ValueError(f"{key}: {found.group()} in {cut(prompt)!r}: a word {why}")
        if found := re.search(r"\{[^{}]*\}", self.generate.negative_prompt):
            raise ValueError(f"generate.negative_prompt: {cut(found.group())} means nothing here; write a learnt word as it is: <my-thing>")
        return self

    @model_validator(mode="after")
    def _what_is_compared_can_be(self) -> Params:
        arms(self)
        return self

    def section(self, *names: str) -> dict[str, Any]:
        """Sections as JSON values, for a stage's fingerprint."""
        whole = self.model_dump(mode="json", by_alias=True)
        return {name: whole[name] for name in names}


def load(path: Path, overrides: list[str] | tuple[str, ...] = (), overlay: Path | None = None) -> Params:
    """Read `params.yaml`; put the values of the keys that `overlay` has over it, then `section.key=value` overrides, whose values are
    YAML, and texts as they stand.

    Raises ParamsError with the file, the key and what it should be.
    """
    path = path.expanduser()
    tree = read_tree(path)
    if overlay:
        lay_over(tree, read_tree(overlay.expanduser()))
    for override in overrides:
        apply_override(tree, override, Params)
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in e['loc']) or 'file'}: "
            + (_MISSING if e["type"] == "missing" else e["msg"].removeprefix("Value error, "))
            for e in error.errors()
        ]
        where = f"{path} with {overlay}" if overlay else path
        raise ParamsError(f"{where}:\n" + "\n".join(lines) + "\ndocs/params.md has every key with its range and effect.") from None
