"""The stage `validate`: image sets to manifests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ti_pipeline.concepts.concept import Concept, concept_digest, discover
from ti_pipeline.concepts.folder import Entry, list_folder
from ti_pipeline.concepts.manifest import write_manifest
from ti_pipeline.concepts.pictures import has_clear_colours
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, table_metadata
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import forget_gone, remove
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.workspace import CONCEPTS, MANIFESTS, Outcome, State, Workspace, fingerprint

VERSION = 2


def discovered(run: Run) -> dict[str, Concept | ConceptError]:
    """The run's concepts by slug, and what is wrong with those that are none. Raises ParamsError."""
    concepts, errors = discover(run.workspace.concepts, run.names)
    return {concept.slug: concept for concept in concepts} | {error.concept: error for error in errors}


def _tokens(run: Run) -> set[str]:
    """Words that are learnt or will be, in lower case; of the whole collection, whatever the run names."""
    return {concept.token.lower() for concept in discover(run.workspace.concepts)[0]}


def _concepts(run: Run) -> list[str]:
    found = run.once(discovered)
    if run.names is None:
        forget_gone(run.workspace, VALIDATE, found, [slug for slug, concept in found.items() if isinstance(concept, Concept)])
    return sorted(found)


def validate_fingerprint(concept: Concept, params: Params, ranker: str) -> str:
    """Over the settings, the names and bytes of the files, the `validate` section and the ranker's digest. Raises ConceptError."""
    listing = list_folder(concept.folder)
    files = [(entry.name, entry.refusal or _digest(entry)) for entry in listing.files]
    inputs = {"concept": concept_digest(concept), "files": files, "subfolders": listing.subfolders, "ranker": ranker}
    if listing.masks:
        inputs["masks"] = [(entry.name, entry.refusal or _digest(entry)) for entry in listing.masks]
    if clear := [entry.name for entry in listing.files if not entry.refusal and has_clear_colours(entry.path)]:
        inputs["clear colours"] = clear  # masks, since they are looked for
    return fingerprint("validate", VERSION, inputs, params.section("validate"))


def _digest(entry: Entry) -> str:
    try:
        return digest_file(entry.path)
    except OSError as error:  # the file will be refused with this reason, and looked at again once it can be read
        return str(error.strerror)


def _plan(run: Run, slug: str) -> Plan:
    concept = run.once(discovered)[slug]
    if isinstance(concept, ConceptError):
        return Plan(slug, "", None, concept)
    try:
        wanted = validate_fingerprint(concept, run.params, run.models.ranker_digest)
    except ConceptError as error:
        return Plan(slug, "", None, error)
    return Plan(slug, wanted, _standing(run.workspace, slug, wanted), concept)


def _standing(workspace: Workspace, slug: str, wanted: str) -> Outcome | None:
    stored = table_metadata(workspace.manifest(slug))
    if stored.get("fingerprint") != wanted or not workspace.report(slug).is_file():
        return None
    return _outcome(workspace, slug, "up-to-date", stored["quarantine"], stored.get("left_out", ""))


def _work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    """State `quarantined` when no picture can be used; the manifest then says why and names none."""
    from ti_pipeline.concepts.validation import validate_concept
    from ti_pipeline.words.start import measured

    for plan in plans:
        try:
            if isinstance(plan.order, ConceptError):
                raise plan.order
            concept = plan.order
            if concept.start:
                concept = replace(concept, start=measured(concept.slug, concept.start, concept.folder))
            validation = validate_concept(concept, run.params.validate_, run.models.embed)
            write_manifest(run.workspace, concept, validation, run.params.validate_.background, plan.fingerprint)
            yield _outcome(run.workspace, plan.concept, "done", validation.quarantine, validation.left_out)
        except ConceptError as error:  # its manifest is of other files; what else was made of it waits until it is mended
            remove(run.workspace, VALIDATE, plan.concept)
            yield Outcome("validate", plan.concept, "quarantined", reason=error.reason)


def _outcome(workspace: Workspace, slug: str, state: State, quarantine: str, left_out: str) -> Outcome:
    path = workspace.manifest(slug)
    return Outcome("validate", slug, "quarantined" if quarantine else state, 0.0, quarantine or left_out, str(path), digest_file(path))


def _remark(run: Run, outcome: Outcome) -> Outcome:
    from ti_pipeline.stages.foresight import foretold

    return foretold(run.workspace, outcome, run.params, run.once(_tokens), run.models.reader_if_there)


VALIDATE = Stage(
    name="validate",
    about="Decode and check every picture; write the manifests.",
    output=MANIFESTS,
    places=("{}.parquet", "{}.json"),
    last=Workspace.manifest,
    reads=(CONCEPTS,),
    needs=(),
    # all after `validate` are for what it foretells of later stages, none of which is in the manifests
    sections=(
        "concepts",
        "validate",
        "evaluate.prompts",
        "generate.briefs",
        "generate.negative_prompt",
        "train.setup",
        "train.setups",
        "train.steps",
        "train.vectors",
    ),
    models=("ranker", "reader"),
    hours=0.25,
    concepts=_concepts,
    plan=_plan,
    work=_work,
    remark=_remark,
)
