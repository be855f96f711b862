"""Briefs: what pictures of a concept are wanted, as prompts with learnt words and as plain words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ti_pipeline import params
from ti_pipeline.concepts.texts import PLACE, WORD
from ti_pipeline.errors import ConceptError
from ti_pipeline.words.word import Word

if TYPE_CHECKING:
    from ti_pipeline.concepts.manifest import Manifest


@dataclass(frozen=True)
class Brief:
    """`text` has `{token}` in it, `prompt` the learnt words, `scoring_text` the class words in their places."""

    index: int
    text: str
    prompt: str
    scoring_text: str
    words: tuple[str, ...]


def brief_texts(manifest: Manifest, settings: params.Generate) -> list[str]:
    """The concept's own briefs, or those for its kind; each once. Its own token may stand for `{token}`."""
    texts = manifest.briefs or settings.briefs.get(manifest.kind, ())
    if not texts:
        raise ConceptError(
            manifest.slug, f"there is no brief for a {manifest.kind}. Add some under generate.briefs.{manifest.kind} or in concept.yaml."
        )
    own = re.compile(re.escape(manifest.token), re.IGNORECASE)
    return list(dict.fromkeys(own.sub(PLACE, text) for text in texts))


def words_in(texts: list[str]) -> list[str]:
    """Learnt words other than the concept's own that the briefs name, lower case, each once."""
    return list(dict.fromkeys(word.lower() for text in texts for word in WORD.findall(text)))


def briefs_for(manifest: Manifest, texts: list[str], learnt: Mapping[str, Word]) -> list[Brief]:
    """The briefs of `texts`; `learnt` has every word in them by its token in lower case, the concept's own among them.

    Raises ConceptError for a brief without a place for the concept's word.
    """
    briefs = []
    for index, text in enumerate(texts):
        if PLACE not in text:
            raise ConceptError(manifest.slug, f"the brief {text!r} has no place for the learnt word. Write {PLACE} where it goes.")
        prompt = text.replace(PLACE, manifest.token)
        found = list(dict.fromkeys(word.lower() for word in WORD.findall(prompt)))
        scoring = WORD.sub(lambda match: learnt[match.group().lower()].class_words, prompt)
        briefs.append(Brief(index, text, prompt, scoring, tuple(found)))
    return briefs
