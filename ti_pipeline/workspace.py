"""Where everything lies in a workspace, and what a stage says about a concept when it is done with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ti_pipeline.concepts.texts import visible
from ti_pipeline.files import digest_value

State = Literal["done", "up-to-date", "failed", "quarantined"]


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

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    def manifest(self, concept: str) -> Path:
        return self.artifacts / "manifests" / f"{concept}.parquet"

    def report(self, concept: str) -> Path:
        return self.artifacts / "manifests" / f"{concept}.json"

    def embedding(self, concept: str) -> Path:
        return self.artifacts / "embeddings" / concept / "learned_embeds.safetensors"

    def training(self, concept: str) -> Path:
        return self.artifacts / "embeddings" / concept / "training.parquet"

    def checkpoint(self, concept: str) -> Path:
        """Outside of every stage's output: what is half done is nobody's input."""
        return self.artifacts / "checkpoints" / f"{concept}.safetensors"

    def candidates(self, concept: str) -> Path:
        """The folder of one concept's candidates; `candidates.parquet` in it comes last."""
        return self.artifacts / "candidates" / concept

    def candidate_table(self, concept: str) -> Path:
        return self.candidates(concept) / "candidates.parquet"

    def ranking(self, concept: str) -> Path:
        return self.artifacts / "rankings" / f"{concept}.parquet"

    @property
    def evaluation(self) -> Path:
        return self.artifacts / "evaluation"

    @property
    def galleries(self) -> Path:
        return self.artifacts / "galleries"


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
