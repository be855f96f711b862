"""The six stages, each over a whole collection. A Prefect task and the command that `dvc.yaml` names call the same function.

One bad concept is an Outcome with its reason and never stops the others. What no concept is to blame for goes through:
ParamsError, an operating system's error, a device that is out of memory.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace

from ti_pipeline import reasons
from ti_pipeline.collection import forget_gone, remove, remove_withdrawn, validated
from ti_pipeline.concepts.concept import discover
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.errors import BrokenOff, ConceptError, NotYet, ParamsError, PipelineError, out_of_memory
from ti_pipeline.files import read_table
from ti_pipeline.leftovers import sweep
from ti_pipeline.models import Models
from ti_pipeline.params import Params
from ti_pipeline.turns import OVERVIEW, turn
from ti_pipeline.workspace import Outcome, Workspace

Progress = Callable[[int, int, str], None]
Names = Sequence[str] | None
Step = Callable[[int, int, str], None]
QUARANTINE = "in quarantine: "
PER_CONCEPT = 1000  # a concept's share of the stage's progress
log = logging.getLogger(__name__)


def validate(
    workspace: Workspace, params: Params, names: Names = None, *, force: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Image sets to manifests."""
    from ti_pipeline.concepts.stage import validate_one
    from ti_pipeline.foresight import foretold

    concepts, errors = discover(workspace.concepts, names)
    models = Models(params, workspace.root)
    by_slug = {concept.slug: concept for concept in concepts}
    wrong = {error.concept: error.reason for error in errors}
    whole = concepts if names is None else discover(workspace.concepts)[0]
    tokens = {concept.token.lower() for concept in whole}
    if names is None:
        forget_gone(workspace, {*by_slug, *wrong}, by_slug)
    sweep(workspace, "validate", names)

    def work(slug: str, step: Step) -> Outcome:
        if slug in wrong:  # its last manifest is of other settings; what else was made of it waits until it is mended
            remove(workspace, "validate", slug)
            return Outcome("validate", slug, "quarantined", reason=wrong[slug])
        outcome = validate_one(workspace, by_slug[slug], params, models.embed, models.ranker.digest, force=force)
        return foretold(workspace, outcome, params, tokens, models.reader_if_there) if outcome.ok else outcome

    return _each(workspace, "validate", sorted({*by_slug, *wrong}), progress, work)


def train(
    workspace: Workspace, params: Params, names: Names = None, *, force: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Manifests to embeddings. The generator is loaded only when some concept needs it."""
    from ti_pipeline.inversion.stage import checkpoint_of

    of = named(workspace, names)
    sweep(workspace, "train", names)
    with turn(workspace, "train", [*of, checkpoint_of(workspace, of).stem]):
        return _train(workspace, params, names, force, progress)


def _train(workspace: Workspace, params: Params, names: Names, force: bool, progress: Progress | None) -> list[Outcome]:
    from ti_pipeline.inversion.stage import half_done, standing, train_many, training_fingerprint

    models = Models(params, workspace.root)
    todo: list[Manifest] = []
    going_on: set[str] = half_done(workspace, named(workspace, names)) if not force else set()

    def look(manifest: Manifest, step: Step) -> Outcome | None:
        wanted = training_fingerprint(models.source.digest, manifest, params)
        outcome = None if force else standing(workspace, manifest.slug, wanted)
        if outcome is None or manifest.slug in going_on:
            todo.append(manifest)
            return None
        return outcome

    outcomes = {outcome.concept: outcome for outcome in _each_manifest("train", workspace, names, None, look, alone=True)}
    if todo:
        began, spent = time.monotonic(), Counter()

        def failed(slug: str, error: Exception) -> None:
            outcomes[slug] = _lost(workspace, "train", slug, error, spent[slug])

        of = named(workspace, names)
        choose = models.choose_initializer
        made = train_many(workspace, models.generator, todo, params, choose, progress, failed=failed, of=of, force=force, spent=spent)
        outcomes |= {slug: _kept(workspace, outcome) for slug, outcome in made.items()}
        outcomes |= _parted(outcomes, [manifest.slug for manifest in todo], spent, time.monotonic() - began)
    return [outcomes[slug] for slug in sorted(outcomes)]


def generate(
    workspace: Workspace, params: Params, names: Names = None, *, force: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Embeddings and briefs to candidates."""
    sweep(workspace, "generate", names)
    with turn(workspace, "generate", named(workspace, names)):
        return _generate(workspace, params, names, force, progress)


def _generate(workspace: Workspace, params: Params, names: Names, force: bool, progress: Progress | None) -> list[Outcome]:
    from ti_pipeline.candidates.generate import generate_many, read_order, standing
    from ti_pipeline.words.learnt import Words

    models, words = Models(params, workspace.root), Words(workspace)
    todo: list[Manifest] = []
    beside = 0

    def look(manifest: Manifest, step: Step) -> Outcome | None:
        nonlocal beside
        order = read_order(workspace, models.source.digest, manifest, params, words)
        if not force and (outcome := standing(workspace, manifest.slug, order.fingerprint)):
            beside += len(read_table(workspace.candidate_table(manifest.slug)))
            return outcome
        todo.append(manifest)
        return None

    outcomes = {outcome.concept: outcome for outcome in _each_manifest("generate", workspace, names, None, look, alone=True)}
    if todo:
        began, spent = time.monotonic(), Counter()

        def failed(slug: str, error: Exception) -> None:
            outcomes[slug] = _lost(workspace, "generate", slug, error, 0.0)

        made = generate_many(
            workspace, models.generator, todo, params, progress, failed=failed, force=force, beside=beside, clip=models.ranker_if_there,
            spent=spent,
        )  # fmt: skip
        outcomes |= {slug: _kept(workspace, outcome) for slug, outcome in made.items()}
        outcomes |= _parted(outcomes, [manifest.slug for manifest in todo], spent, time.monotonic() - began)
    return [outcomes[slug] for slug in sorted(outcomes)]


def rank(
    workspace: Workspace, params: Params, names: Names = None, *, force: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Candidates to their order."""
    from ti_pipeline.ranking.rank import rank_one

    models = Models(params, workspace.root)

    def work(manifest: Manifest, step: Step) -> Outcome:
        return rank_one(workspace, models.ranker, manifest, params, step, force=force)

    return _each_manifest("rank", workspace, names, progress, work)


def evaluate(
    workspace: Workspace, params: Params, names: Names = None, *, force: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Embeddings to metrics; the summary is always over every concept of the workspace."""
    from ti_pipeline.evaluation.evaluate import evaluate_one, evaluation_fingerprint, standing
    from ti_pipeline.evaluation.summary import summarise
    from ti_pipeline.words.learnt import load_own

    models = Models(params, workspace.root)

    def work(manifest: Manifest, step: Step) -> Outcome:
        word = load_own(workspace, manifest.slug, manifest.token, manifest.initializer)
        wanted = evaluation_fingerprint(models.source.digest, models.ranker.digest, models.judge.digest, word, manifest, params)
        if not force and (outcome := standing(workspace, manifest.slug, wanted)):
            return outcome
        return evaluate_one(workspace, models.generator, models.ranker, models.judge, manifest, params, step, force=force)

    outcomes = _each_manifest("evaluate", workspace, names, progress, work)
    with turn(workspace, "evaluate", [OVERVIEW]):
        summarise(workspace, validated(workspace))
    return outcomes


def gallery(
    workspace: Workspace, params: Params, names: Names = None, *, force: bool = False, progress: Progress | None = None
) -> list[Outcome]:
    """Everything to pages; the overview is always over every concept of the workspace."""
    from ti_pipeline.gallery.build import build_page
    from ti_pipeline.gallery.overview import build_index
    from ti_pipeline.gallery.render import write_static

    def work(manifest: Manifest, step: Step) -> Outcome:
        return build_page(workspace, manifest, params, force=force)

    with turn(workspace, "gallery", [OVERVIEW]):
        write_static(workspace.galleries)  # so that no page, which has the turn of its concept only, has to
    outcomes = _each_manifest("gallery", workspace, names, progress, work)
    with turn(workspace, "gallery", [OVERVIEW]):
        build_index(workspace, params, validated(workspace))
    return outcomes


STAGES = {"validate": validate, "train": train, "generate": generate, "rank": rank, "evaluate": evaluate, "gallery": gallery}


def _each(
    workspace: Workspace,
    stage: str,
    slugs: Sequence[str],
    progress: Progress | None,
    work: Callable[[str, Step], Outcome | None],
    alone: bool = False,
) -> list[Outcome]:
    """The outcomes of those concepts that `work` has one for, their reasons kept. Each waits its turn, unless the caller is `alone`."""
    outcomes = []
    for index, slug in enumerate(slugs):

        def step(done: int, total: int, text: str, index: int = index, slug: str = slug) -> None:
            if progress:
                progress(int((index + done / max(total, 1)) * PER_CONCEPT), len(slugs) * PER_CONCEPT, f"{slug}: {text}")

        began = time.monotonic()
        step(0, 1, stage)
        with nullcontext() if alone else turn(workspace, stage, [slug]):
            try:
                if outcome := work(slug, step):
                    outcomes.append(_kept(workspace, outcome))
            except Exception as error:
                outcomes.append(_lost(workspace, stage, slug, error, time.monotonic() - began))
        step(1, 1, stage)
    return outcomes


def _parted(outcomes: Mapping[str, Outcome], slugs: Sequence[str], spent: Mapping[str, float], seconds: float) -> dict[str, Outcome]:
    """Outcomes of concepts that were worked on together: each has its part of the `seconds` that all of them took."""
    whole = sum(spent[slug] for slug in slugs)
    return {slug: replace(outcomes[slug], seconds=seconds * (spent[slug] / whole if whole else 1 / len(slugs))) for slug in slugs}


def _lost(workspace: Workspace, stage: str, slug: str, error: Exception, seconds: float) -> Outcome:
    """The outcome of a concept that raised `error`, its reason kept; raises what no concept is to blame for."""
    if isinstance(error, (ParamsError, BrokenOff, OSError)) or out_of_memory(error):
        raise error
    reason = error.reason if isinstance(error, ConceptError) else str(error)
    if isinstance(error, NotYet):
        reasons.forget(workspace, stage, slug)  # what it was is of other inputs
        return Outcome(stage, slug, "quarantined" if reason.startswith(QUARANTINE) else "failed", seconds, reason)
    if not isinstance(error, PipelineError):
        log.error("%s of %s", stage, slug, exc_info=error)
        reason = f"{type(error).__name__}: {error}. The log has the details."
    return _kept(workspace, Outcome(stage, slug, "failed", seconds, reason))


def _kept(workspace: Workspace, outcome: Outcome) -> Outcome:
    reasons.keep(workspace, outcome)
    return outcome


def named(workspace: Workspace, names: Names) -> list[str]:
    """The concepts of a call, sorted: those that it names, or every one that has a manifest."""
    return sorted(set(names)) if names is not None else validated(workspace)


def _each_manifest(
    stage: str,
    workspace: Workspace,
    names: Names,
    progress: Progress | None,
    work: Callable[[Manifest, Step], Outcome | None],
    alone: bool = False,
) -> list[Outcome]:
    slugs = named(workspace, names)
    if not slugs:
        raise ParamsError(f"{workspace.artifacts / 'manifests'} holds no manifest. Run `ti-pipeline validate` first.")
    if names is None:
        remove_withdrawn(workspace, [stage])
    if not alone:
        sweep(workspace, stage, names)

    def on_manifest(slug: str, step: Step) -> Outcome | None:
        if lost := reasons.before(workspace, stage, slug):
            raise NotYet(slug, f"{QUARANTINE}{lost.reason}" if lost.state == "quarantined" else str(lost))
        return work(read_manifest(workspace, slug), step)

    return _each(workspace, stage, slugs, progress, on_manifest, alone)
