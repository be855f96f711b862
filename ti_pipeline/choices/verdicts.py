"""What people said of each picture, in one file a concept: the stage `rank` reads it, so a ranking stays a function of files."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ti_pipeline.errors import ConceptError
from ti_pipeline.files import write_json
from ti_pipeline.workspace import Workspace

if TYPE_CHECKING:
    from ti_pipeline.choices.store import Choice

ID = 16  # hexadecimal digits of a picture's SHA-256 that a page knows it by
PICKED, REJECTED = 10.0, -10.0  # any pick comes before any stars, any reject after


@dataclass(frozen=True)
class Verdict:
    """What people said of one picture: how many picked it, how many rejected it, and the mean of the stars that they gave, or 0."""

    picks: int
    rejects: int
    stars: float

    @property
    def picked(self) -> bool:
        """By more people than rejected it."""
        return self.picks > self.rejects

    @property
    def liking(self) -> float:
        """One scale: a pick before any stars, stars before nothing, a reject last. Undecided is 0."""
        return (PICKED if self.picked else REJECTED if self.rejects > self.picks else 0.0) + self.stars

    @property
    def words(self) -> str:
        """`picked by 2 people, 4 stars`."""
        parts = [
            f"{verb} by {n} {'person' if n == 1 else 'people'}" for verb, n in (("picked", self.picks), ("rejected", self.rejects)) if n
        ]
        return ", ".join([*parts, *([f"{self.stars:g} star{'' if self.stars == 1 else 's'}"] if self.stars else [])])


def verdict_path(workspace: Workspace, concept: str) -> Path:
    return workspace.root / "choices" / f"{concept}.json"


def write_verdicts(workspace: Workspace, choices: Iterable[Choice]) -> dict[str, int]:
    """One file a concept for the stage `rank` to read, and none for a concept without choices; returns people's decisions by concept."""
    by_concept: dict[str, dict[str, list[Choice]]] = defaultdict(lambda: defaultdict(list))
    for choice in choices:
        by_concept[choice.concept][choice.picture].append(choice)
    for path in (workspace.root / "choices").glob("*.json"):
        if path.stem not in by_concept and not path.name.startswith("_"):
            path.unlink()
    for concept, pictures in by_concept.items():
        table = {picture: _verdict(of_one) for picture, of_one in pictures.items()}
        write_json(verdict_path(workspace, concept), {"concept": concept, "pictures": table})
    return {concept: sum(map(len, pictures.values())) for concept, pictures in by_concept.items()}


def read_verdicts(workspace: Workspace, concept: str) -> dict[str, Verdict]:
    """By the start of a picture's digest; empty when nobody has chosen. Raises ConceptError."""
    path = verdict_path(workspace, concept)
    try:
        pictures = json.loads(path.read_text(encoding="utf-8"))["pictures"]
        return {key: Verdict(int(said["picks"]), int(said["rejects"]), float(said["stars"])) for key, said in pictures.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConceptError(concept, f"{path}: damaged ({error!r}). Run `ti-pipeline rank --with-choices {concept}`.") from None


def _verdict(choices: list[Choice]) -> dict[str, Any]:
    stars = [choice.stars for choice in choices if choice.stars]
    return {
        "picks": sum(choice.flag == "pick" for choice in choices),
        "rejects": sum(choice.flag == "reject" for choice in choices),
        "stars": round(sum(stars) / len(stars), 3) if stars else 0.0,
    }
