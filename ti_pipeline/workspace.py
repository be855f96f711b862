"""Where everything lies in a workspace, and what a stage says about a concept when it is done with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ti_pipeline.concepts.texts import visible
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_value

State = Literal["done", "up-to-date", "failed", "quarantined"]

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
# Folders under `artifacts/`, each the output of one stage.
MANIFESTS, EMBEDDINGS, CANDIDATES = "manifests", "embeddings", "candidates"
RANKINGS, EVALUATION, GALLERIES, COMPARISON = "rankings", "evaluation", "galleries", "comparison"
# Folders under `artifacts/` for what saves time and changes no result: half-done trainings, pictures drawn meanwhile, what CLIP saw while
# candidates were made, and words and measurements of setups that are not compared now.
CHECKPOINTS, PREVIEWS, LOOKS, COMPARING = "checkpoints", "previews", "looks", "comparing"
# The folder under `artifacts/` for pictures of prompts that somebody typed; no stage's.
DRAWINGS = "drawings"
# What stages read that no stage has made.
CONCEPTS, CHOICES = "concepts", "choices"


@dataclass(frozen=True)
class Workspace:
    """A folder with concepts and, under `artifacts/`, what the stages made of them."""

    root: Path
    concepts: Path

    @classmethod
    def at(cls, root: Path, concepts: str) -> Workspace:
        """`concepts` is taken relative to `root` unless it is absolute; `~` is the home folder in both."""
        root = root.expanduser()
        return cls(root.resolve(), (root / Path(concepts).expanduser()).resolve())

    @classmethod
    def open(cls, root: Path, concepts: str) -> Workspace:
        """One to work in. Raises ParamsError where there is no such folder: a misspelt one is not made and filled."""
        if not root.is_dir():
            raise ParamsError(f"{root}: there is no such folder. A workspace is a folder that is there, with its params.yaml.")
        return cls.at(root, concepts)

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def manifest(self, concept: str) -> Path:
        return self.artifacts / MANIFESTS / f"{concept}.parquet"

    def report(self, concept: str) -> Path:
        return self.artifacts / MANIFESTS / f"{concept}.json"

    def embedding(self, concept: str) -> Path:
        return self.artifacts / EMBEDDINGS / concept / "learned_embeds.safetensors"

    def training(self, concept: str) -> Path:
        return self.artifacts / EMBEDDINGS / concept / "training.parquet"

    def steps(self, concept: str) -> Path:
        """The words as they were on the way."""
        return self.artifacts / EMBEDDINGS / concept / "steps.safetensors"

    def curve(self, concept: str) -> Path:
        """How much like the pictures, and how obedient to prompts, the word was at each of its steps."""
        return self.artifacts / EMBEDDINGS / concept / "curve.parquet"

    def strip(self, concept: str) -> Path:
        """The pictures that were drawn while it trained, side by side."""
        return self.artifacts / EMBEDDINGS / concept / "previews.png"

    def frames(self, concept: str) -> Path:
        """The folder of these pictures while it trains."""
        return self.artifacts / PREVIEWS / concept

    def checkpoint(self, concept: str) -> Path:
        """Outside of every stage's output: what is half done is nobody's input."""
        return self.artifacts / CHECKPOINTS / f"{concept}.safetensors"

    def looks(self, concept: str) -> Path:
        """What CLIP saw in a concept's candidates while they were made."""
        return self.artifacts / LOOKS / f"{concept}.safetensors"

    def candidates(self, concept: str) -> Path:
        """The folder of one concept's candidates; `candidates.parquet` in it comes last."""
        return self.artifacts / CANDIDATES / concept

    def candidate_table(self, concept: str) -> Path:
        return self.candidates(concept) / "candidates.parquet"

    def ranking(self, concept: str) -> Path:
        return self.artifacts / RANKINGS / f"{concept}.parquet"

    @property
    def choices(self) -> Path:
        """What people chose: their work, and no stage's."""
        return self.root / CHOICES

    @property
    def evaluation(self) -> Path:
        return self.artifacts / EVALUATION

    @property
    def comparison(self) -> Path:
        return self.artifacts / COMPARISON

    @property
    def galleries(self) -> Path:
        return self.artifacts / GALLERIES

    @property
    def drawings(self) -> Path:
        return self.artifacts / DRAWINGS


@dataclass(frozen=True)
class Outcome:
    """What became of one concept in one stage. Small and serialisable: paths and digests, never tensors.

    A reason may quote file names and other people's texts; it is one line without control characters, wherever it goes.
    """

    stage: str
    concept: str
    state: State
    seconds: float = 0.0
    reason: str = ""
    path: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", visible(self.reason))

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
