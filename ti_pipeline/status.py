"""What is up to date, stale, missing or quarantined, without doing any of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ti_pipeline.candidates.generate import read_order
from ti_pipeline.candidates.generate import standing as generated
from ti_pipeline.choices.verdicts import read_verdicts
from ti_pipeline.concepts.concept import Concept, discover
from ti_pipeline.concepts.manifest import Manifest, read_manifest
from ti_pipeline.concepts.stage import validate_fingerprint
from ti_pipeline.errors import ConceptError
from ti_pipeline.evaluation.evaluate import evaluation_fingerprint
from ti_pipeline.evaluation.evaluate import standing as evaluated
from ti_pipeline.files import table_metadata
from ti_pipeline.gallery.build import gallery_fingerprint
from ti_pipeline.gallery.build import standing as hung
from ti_pipeline.inversion.stage import standing as trained
from ti_pipeline.inversion.stage import training_fingerprint
from ti_pipeline.models import Models
from ti_pipeline.params import Params
from ti_pipeline.ranking.rank import rank_fingerprint, read_candidates
from ti_pipeline.reasons import Reason, read_all
from ti_pipeline.stages import STAGES
from ti_pipeline.words.learnt import Words, load_own
from ti_pipeline.workspace import Workspace


def survey(workspace: Workspace, params: Params) -> list[dict]:
    """One row a concept: `{"concept", "stages": {stage: state}, "reason"}`; a state is up-to-date, stale, missing, failed or quarantined.

    A stage behind one that is not up to date has that one's state: its own inputs are about to change. `failed` is one that is not up
    to date and failed when it was last tried; of a concept that is up to date the reason says what was left out.
    """
    models, words, kept = Models(params, workspace.root), Words(workspace), read_all(workspace)
    concepts, errors = discover(workspace.concepts)
    rows = [{"concept": e.concept, "stages": dict.fromkeys(STAGES, "quarantined"), "reason": e.reason} for e in errors]
    rows += [_row(workspace, params, models, words, concept, kept.get(concept.slug, [])) for concept in concepts]
    return sorted(rows, key=lambda row: row["concept"])


def _row(workspace: Workspace, params: Params, models: Models, words: Words, concept: Concept, kept: list[Reason]) -> dict:
    states = {}
    reason = "; ".join(str(each) for each in kept if each.ok)
    try:
        for stage, state in _states(workspace, params, models, words, concept):
            states[stage] = state
            if state != "up-to-date":
                reason = f"{stage} has not run yet" if state == "missing" else f"{stage}: pictures, params or models have changed"
                if lost := next((each for each in kept if each.stage == stage and not each.ok), None):
                    states[stage], reason = lost.state, str(lost)
                break
    except ConceptError as error:
        reason = error.reason
        states[next(stage for stage in STAGES if stage not in states)] = "quarantined" if "in quarantine" in reason else "missing"
    last = list(states.values())[-1]
    return {"concept": concept.slug, "stages": {stage: states.get(stage, last) for stage in STAGES}, "reason": reason}


def _states(workspace: Workspace, params: Params, models: Models, words: Words, concept: Concept) -> Iterator[tuple[str, str]]:
    slug = concept.slug
    stored = table_metadata(workspace.manifest(slug)).get("fingerprint")
    yield "validate", _state(stored is not None, lambda: stored == validate_fingerprint(concept, params, models.ranker.digest))
    manifest: Manifest = read_manifest(workspace, slug)
    generator = models.source.digest
    yield (
        "train",
        _state(workspace.embedding(slug).is_file(), lambda: trained(workspace, slug, training_fingerprint(generator, manifest, params))),
    )
    yield (
        "generate",
        _state(
            workspace.candidate_table(slug).is_file(),
            lambda: generated(workspace, slug, read_order(workspace, generator, manifest, params, words).fingerprint),
        ),
    )
    ranked = table_metadata(workspace.ranking(slug)).get("fingerprint")
    yield (
        "rank",
        _state(
            ranked is not None,
            lambda: (
                ranked
                == rank_fingerprint(
                    read_candidates(workspace, slug), models.ranker.digest, manifest, params, read_verdicts(workspace, slug)
                )
            ),
        ),
    )
    word = load_own(workspace, slug, manifest.token, manifest.initializer)
    wanted = evaluation_fingerprint(generator, models.ranker.digest, models.judge.digest, word, manifest, params)
    yield "evaluate", _state((workspace.evaluation / "concepts" / f"{slug}.json").is_file(), lambda: evaluated(workspace, slug, wanted))
    yield (
        "gallery",
        _state(
            (workspace.galleries / slug / "page.json").is_file(),
            lambda: hung(workspace, slug, gallery_fingerprint(workspace, manifest, params)),
        ),
    )


def _state(there: bool, stands: Callable[[], object]) -> str:
    if not there:
        return "missing"
    return "up-to-date" if stands() else "stale"
