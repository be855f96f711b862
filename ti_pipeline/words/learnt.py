"""The learnt words of a workspace that briefs may name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ti_pipeline.errors import ConceptError, NotYet, ParamsError
from ti_pipeline.stages.collection import current
from ti_pipeline.words.files import read_word
from ti_pipeline.words.headers import word_token
from ti_pipeline.words.word import Word
from ti_pipeline.workspace import Workspace


@dataclass(frozen=True)
class Words:
    """Which current concept has learnt which word. Looked up once, when the first one is asked for: make a new one for each run."""

    workspace: Workspace

    @cached_property
    def files(self) -> dict[str, Path]:
        """The file of each token, in lower case. What a renamed or removed concept has left behind is nobody's word."""
        paths = [path for slug in sorted(current(self.workspace)) if (path := self.workspace.embedding(slug)).is_file()]
        return {token.lower(): path for path in paths if (token := word_token(path))}


def load_own(workspace: Workspace, concept: str, token: str, initializer: str | None) -> Word:
    """The concept's own word under the token that it has now. Raises ConceptError when it is not learnt."""
    path = workspace.embedding(concept)
    if not path.is_file():
        raise NotYet(concept, f"{path} is not there. Run `ti-pipeline train {concept}` first.")
    return _load(path, concept, token, initializer)


def load_others(words: Words, concept: str, tokens: list[str], where: str = "a brief") -> dict[str, Word]:
    """Words of other concepts by their token in lower case. Raises ConceptError that names a word nobody has learnt here.

    `where` is where they are named, for that reason.
    """
    found = {}
    for token in tokens:
        if token not in words.files:
            known = ", ".join(sorted(words.files)[:12]) or "none"
            raise ConceptError(
                concept,
                f"{where} names {token}, which no concept of this workspace has learnt. Learnt are: {known}. "
                "Train that concept first, or take the word out.",
            )
        found[token] = _load(words.files[token], concept, token, None)
    return found


def _load(path: Path, concept: str, token: str, initializer: str | None) -> Word:
    try:
        word = read_word(path)
    except ParamsError as error:
        raise ConceptError(concept, str(error)) from None
    class_words = word.class_words or initializer or path.parent.name.replace("-", " ").replace("_", " ")
    return replace(word, token=token, class_words=class_words)
