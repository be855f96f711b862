"""What `validate` can tell of the stages after it: texts that the generator does not read to their end, and words that nobody learns.

Nothing of it goes into the manifest, which stays what the pictures and settings make it.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace

from ti_pipeline.candidates.briefs import brief_texts, words_in
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.concepts.texts import PLACE, cut
from ti_pipeline.errors import ConceptError
from ti_pipeline.generators.placeholder import check_prompt, word_ids
from ti_pipeline.generators.reader import Reader
from ti_pipeline.inversion.prompts import check_captions, prompts_for
from ti_pipeline.params import Params
from ti_pipeline.words.start import check_start
from ti_pipeline.workspace import Outcome, Workspace


def foretold(workspace: Workspace, outcome: Outcome, params: Params, tokens: Set[str], reader: Reader | None) -> Outcome:
    """The outcome of `validate` of a concept that can be used: failed when it cannot be trained, else with what will go wrong later.

    `tokens` are those that are learnt or will be, in lower case. Without a `reader` nothing is said of lengths.
    """
    manifest = read_manifest(workspace, outcome.concept)
    remarks = list(_unknown(manifest, params, tokens))
    if reader:
        try:
            _check_training(manifest, params, reader)
        except ConceptError as error:
            return replace(outcome, state="failed", reason=error.reason)
        remarks += (*_in_pieces(manifest, reader), *_too_long(manifest, params, reader))
    return replace(outcome, reason="; ".join(filter(None, (outcome.reason, *remarks))))


def _check_training(manifest: Manifest, params: Params, reader: Reader) -> None:
    """Of another concept's word that it goes on from, it is not known yet what it is like.

    Where CLIP is to choose the initializer, a caption counts by itself: a word in it may give way to the learnt one."""
    vectors = params.train.for_concept(manifest).longest
    if manifest.start and not manifest.start.token:
        check_start(manifest.slug, manifest.start.name, {name: width for name, (_, width) in manifest.start.shapes.items()}, reader)
    for prompt in prompts_for(manifest.neutral, manifest.token, None, ""):
        check_prompt(reader, manifest.slug, prompt, {manifest.token: vectors})
    prompts: list[list[str]] = []
    for picture in manifest.pictures:
        said = prompts_for(manifest.neutral, manifest.token, picture.caption, manifest.initializer or "")
        if picture.caption and manifest.initializer is None and len(said) > 1:
            said = [picture.caption]
        prompts.append(said)
    check_captions(reader, manifest, prompts, vectors)


def _unknown(manifest: Manifest, params: Params, tokens: Set[str]) -> Iterator[str]:
    briefs = manifest.briefs or params.generate.briefs.get(manifest.kind, ())
    named = {"a brief": words_in([*briefs]), "generate.negative_prompt": words_in([params.generate.negative_prompt])}
    for where, words in named.items():
        for word in words:
            if word not in tokens:
                yield f"generate: {where} names {word}, which no concept here has for its word"


def _in_pieces(manifest: Manifest, reader: Reader) -> Iterator[str]:
    for word in (manifest.initializer or "").split():
        if (pieces := max(len(word_ids(encoder.tokenizer, word)) for encoder in reader.learning.values())) > 1:
            yield f"train: {reader.name} has no word {word!r}; what is learnt starts from the mean of its {pieces} pieces"


def _too_long(manifest: Manifest, params: Params, reader: Reader) -> Iterator[str]:
    """Why texts that pictures are drawn from will not be. Of other concepts' words it is not known yet how long they are."""
    try:
        briefs = brief_texts(manifest, params.generate)
    except ConceptError as error:
        yield f"generate: {error.reason}"
        return
    named = [("generate", f"the brief {cut(text)!r}", text) for text in briefs]
    named.append(("generate", "generate.negative_prompt", params.generate.negative_prompt))
    named += [("evaluate", f"the prompt {cut(text)!r}", text) for text in params.evaluate.prompts.get(manifest.kind, ())]
    for stage, name, text in named:
        lengths = {manifest.token: params.train.for_concept(manifest).longest} | dict.fromkeys(words_in([text]), 1)
        try:
            check_prompt(reader, manifest.slug, text.replace(PLACE, manifest.token), lengths, name)
        except ConceptError as error:
            yield f"{stage}: {error.reason}"
