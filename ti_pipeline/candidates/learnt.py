"""The learnt words of a workspace that briefs may name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ti_pipeline.embeddings.store import read_embedding
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file
from ti_pipeline.generators.generator import Generator
from ti_pipeline.workspace import Workspace


@dataclass(frozen=True)
class LearntWord:
    """`vectors` float32 `[n, d]`; `class_words` stand for the token where a text is read without it; `digest` is the file's."""

    token: str
    vectors: torch.Tensor
    class_words: str
    digest: str


def load_own(workspace: Workspace, concept: str, token: str, initializer: str | None) -> LearntWord:
    """The concept's own word under the token that it has now. Raises ConceptError when it is not learnt."""
    path = workspace.embedding(concept)
    if not path.is_file():
        raise ConceptError(concept, f"{path} is not there. Run `train` for this concept first.")
    return _load(path, concept, token, initializer)


def load_others(workspace: Workspace, concept: str, tokens: list[str], where: str = "a brief") -> dict[str, LearntWord]:
    """Words of other concepts by their token in lower case. Raises ConceptError that names a word nobody has learnt here.

    `where` is where they are named, for that reason.
    """
    if not tokens:
        return {}
    paths = learnt_here(workspace)
    words = {}
    for token in tokens:
        if token not in paths:
            known = ", ".join(sorted(filter(None, paths))[:12]) or "none"
            raise ConceptError(
                concept,
                f"{where} names {token}, which no concept of this workspace has learnt. Learnt are: {known}. "
                "Train that concept first, or take the word out.",
            )
        words[token] = _load(paths[token], concept, token, None)
    return words


def learnt_here(workspace: Workspace) -> dict[str, Path]:
    """The files of all learnt words by their token in lower case."""
    return {_token(path).lower(): path for path in sorted((workspace.artifacts / "embeddings").glob("*/learned_embeds.safetensors"))}


def check_width(generator: Generator, concept: str, word: LearntWord) -> None:
    """Raise ConceptError for a word that was learnt for a model with another text encoder."""
    width, own = generator.vocabulary.shape[1], word.vectors.shape[1]
    if own != width:
        raise ConceptError(
            concept,
            f"the vectors of {word.token} have {own} numbers and {generator.name} takes {width}, so the word was learnt "
            "for another model. Train it again, or set generator.model to that model.",
        )


def _token(path: Path) -> str:
    try:
        return read_embedding(path).token
    except ParamsError:
        return ""


def _load(path: Path, concept: str, token: str, initializer: str | None) -> LearntWord:
    try:
        embedding = read_embedding(path)
    except ParamsError as error:
        raise ConceptError(concept, str(error)) from None
    class_words = embedding.provenance.get("initializer") or initializer or path.parent.name.replace("-", " ").replace("_", " ")
    return LearntWord(token, embedding.vectors, class_words, digest_file(path))
