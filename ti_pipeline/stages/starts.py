"""Words that go on from other words of the workspace: what these stand under, and who is learnt before whom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.concepts.start import KEY
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import table_metadata
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.given import given_wanted
from ti_pipeline.stages.learnt import wanted_of
from ti_pipeline.stages.stage import Plan, Run

if TYPE_CHECKING:
    from ti_pipeline.generators.generator import Generator
    from ti_pipeline.words.word import Word


def _owners(run: Run) -> dict[str, str]:
    """Whose word each token is, in lower case, as validated."""
    slugs = validated(run.workspace)
    return {table_metadata(run.workspace.manifest(slug)).get("token", "").lower(): slug for slug in slugs}


def origin(run: Run, manifest: Manifest) -> str:
    """The concept whose word it goes on from; empty where that is none. Raises ConceptError."""
    if not (manifest.start and manifest.start.token):
        return ""
    if not (slug := run.once(_owners).get(manifest.start.token)):
        raise ConceptError(manifest.slug, f"{KEY}: {manifest.start.name} is the word of no validated concept. Run `ti-pipeline validate`.")
    return slug


def start_fingerprint(run: Run, manifest: Manifest, behind: Sequence[str] = ()) -> str:
    """What the word that it goes on from stands under, or is to; empty where that is none. Raises ConceptError."""
    from ti_pipeline.words.headers import word_fingerprint

    if not (slug := origin(run, manifest)):
        return ""
    if slug in behind:
        raise ConceptError(manifest.slug, f"{KEY}: goes in a circle over {slug}. Run `ti-pipeline validate`.")
    try:
        other = read_manifest(run.workspace, slug)
    except ConceptError as error:
        raise ConceptError(manifest.slug, f"{KEY}: {error}") from None
    given, there = given_wanted(other).word if other.word else "", word_fingerprint(run.workspace.embedding(slug))
    if given and (there == given or not other.pictures):
        return given
    learnt = wanted_of(run, other, start_fingerprint(run, other, (*behind, manifest.slug))).word
    return learnt if not given or there == learnt else given


def together(run: Run) -> list[list[str]]:
    """The concepts of a run, those in one group that go on from each other."""
    groups: dict[str, list[str]] = {}
    for slug in run.chosen:
        groups.setdefault(_first(run, slug), []).append(slug)
    return list(groups.values())


def _first(run: Run, slug: str) -> str:
    """The concept that nobody's word comes before, on the way back; where that cannot be told, as far as it can."""
    way = [slug]
    try:
        while (before := origin(run, read_manifest(run.workspace, way[-1]))) and before not in way:
            way.append(before)
    except ConceptError:  # which the training says
        pass
    return way[-1]


def rounds(run: Run, plans: Sequence[Plan]) -> Iterator[list[Plan]]:
    """Those first that others of them go on from."""
    left = {plan.concept: plan for plan in plans}
    while left:
        now = [plan for plan in left.values() if origin(run, plan.order.manifest) not in left]
        yield now
        for plan in now:
            del left[plan.concept]


def started(run: Run, manifest: Manifest, generator: Generator, fingerprint: str) -> tuple[Manifest, Word | None]:
    """The word that a concept goes on from, and the concept with as many vectors as that has, unless it says otherwise.

    Raises ConceptError for one that is not learnt as it is set now, or not for this generator.
    """
    from ti_pipeline.words.files import read_word
    from ti_pipeline.words.headers import word_fingerprint
    from ti_pipeline.words.start import for_generator, read_start

    if not manifest.start:
        return manifest, None
    if slug := origin(run, manifest):
        path = run.workspace.embedding(slug)
        if word_fingerprint(path) != fingerprint:
            reason = f"the word {manifest.start.name} is not learnt as it is set now. Run `ti-pipeline train {slug} {manifest.slug}`."
            raise ConceptError(manifest.slug, f"{KEY}: {reason}")
        word = read_word(path)
    else:
        word = read_start(manifest.slug, manifest.start)
    word = for_generator(word, manifest.slug, manifest.start.name, generator)
    return replace(manifest, vectors=manifest.vectors or len(word)), word


def said_of(start: Word | None, manifest: Manifest) -> Mapping[str, str]:
    """What the provenance of a word says of the one that it went on from."""
    return {"start_from": manifest.start.name, "start_digest": start.digest} if start and manifest.start else {}
