"""Where everything lies in a workspace, and what a stage says about a concept when it is done with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ti_pipeline.files import digest_value

State = Literal["done", "up-to-date", "failed", "quarantined"]

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
OUTPUTS = {
    "validate": "manifests", "train": "embeddings", "generate": "candidates",
    "rank": "rankings", "evaluate": "evaluation", "gallery": "galleries",
}  # fmt: skip
"""The folder under `artifacts/` that each stage writes, in the order of the stages."""
PLACES = {
    "validate": ("{}.parquet", "{}.json"), "train": ("{}",), "generate": ("{}",),
    "rank": ("{}.parquet",), "evaluate": ("concepts/{}.json", "pictures/{}"), "gallery": ("{}",),
}  # fmt: skip
"""What of a stage's folder is of one concept: a name with a suffix is a file, one without a folder."""
NEEDS: dict[str, tuple[str, ...]] = {
    "validate": (),
    "train": ("validate",),
    "generate": ("validate", "train"),
    "rank": ("validate", "train", "generate"),
    "evaluate": ("validate", "train"),
    "gallery": ("validate", "train", "generate", "rank"),
}
"""Stages that a concept must have come through, the first first."""


@dataclass(frozen=True)
class Workspace:
    """A folder with concepts and, under `artifacts/`, what the stages made of them."""

    root: Path
    concepts: Path

    @classmethod
    def at(cls, root: Path, concepts: str) -> Workspace:
        """`concepts` is taken relative to `root` unless it is absolute."""
        return cls(root.resolve(), (root / concepts).resolve())

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def output(self, stage: str) -> Path:
        """The folder that a stage writes; nothing else writes there."""
        return self.artifacts / OUTPUTS[stage]

    def places(self, stage: str, concept: str) -> list[Path]:
        """Everything that a stage writes for one concept, but for its reason."""
        return [self.output(stage) / place.format(concept) for place in PLACES[stage]]

    def made(self, stage: str) -> set[str]:
        """Concepts of which a stage has written something, current or not."""
        found = set()
        for place in PLACES[stage]:
            suffix = Path(place).suffix
            for path in self.output(stage).glob(place.format("*")):
                slug = path.name.removesuffix(suffix)
                if SLUG.fullmatch(slug) and path.is_dir() == (not suffix):
                    found.add(slug)
        return found

    def manifest(self, concept: str) -> Path:
        return self.output("validate") / f"{concept}.parquet"

    def report(self, concept: str) -> Path:
        return self.output("validate") / f"{concept}.json"

    def embedding(self, concept: str) -> Path:
        return self.output("train") / concept / "learned_embeds.safetensors"

    def training(self, concept: str) -> Path:
        return self.output("train") / concept / "training.parquet"

    def checkpoint(self, concept: str) -> Path:
        """Outside of every stage's output: what is half done is nobody's input."""
        return self.artifacts / "checkpoints" / f"{concept}.safetensors"

    def candidates(self, concept: str) -> Path:
        """The folder of one concept's candidates; `candidates.parquet` in it comes last."""
        return self.output("generate") / concept

    def candidate_table(self, concept: str) -> Path:
        return self.candidates(concept) / "candidates.parquet"

    def ranking(self, concept: str) -> Path:
        return self.output("rank") / f"{concept}.parquet"

    @property
    def evaluation(self) -> Path:
        return self.output("evaluate")

    @property
    def galleries(self) -> Path:
        return self.output("gallery")


@dataclass(frozen=True)
class Outcome:
    """What became of one concept in one stage. Small and serialisable: paths and digests, never tensors."""

    stage: str
    concept: str
    state: State
    seconds: float = 0.0
    reason: str = ""
    path: str = ""
    digest: str = ""

    @property
    def ok(self) -> bool:
        return self.state in ("done", "up-to-date")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fingerprint(stage: str, version: int, inputs: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """What a concept's output of a stage depends on, as one digest; a stage skips what already stands under it.

    `inputs` are digests of files and models, `params` the sections of `params.yaml` that the stage reads,
    `version` the stage's own, raised whenever its results change.
    """
    return digest_value({"stage": stage, "version": version, "inputs": inputs, "params": params})
