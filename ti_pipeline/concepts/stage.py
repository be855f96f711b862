"""The `validate` stage for one concept: image set → manifest."""

from __future__ import annotations

import time

from ti_pipeline.concepts.concept import Concept, concept_digest
from ti_pipeline.concepts.folder import Entry, list_folder
from ti_pipeline.concepts.manifest import write_manifest
from ti_pipeline.concepts.validation import Embed, validate_concept
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, table_metadata
from ti_pipeline.params import Params
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

VERSION = 2


def validate_fingerprint(concept: Concept, params: Params, ranker: str) -> str:
    """Over the settings, the names and bytes of the files, the `validate` section and the ranker's digest. Raises ConceptError."""
    listing = list_folder(concept.folder)
    files = [(entry.name, entry.refusal or _digest(entry)) for entry in listing.files]
    inputs = {"concept": concept_digest(concept), "files": files, "subfolders": listing.subfolders, "ranker": ranker}
    return fingerprint("validate", VERSION, inputs, params.section("validate"))


def _digest(entry: Entry) -> str:
    try:
        return digest_file(entry.path)
    except OSError as error:  # the file will be refused with this reason, and looked at again once it can be read
        return str(error.strerror)


def validate_one(
    workspace: Workspace, concept: Concept, params: Params, embed: Embed | None, ranker: str = "", *, force: bool = False
) -> Outcome:
    """Write the manifest and the report of one concept, unless they stand already for the same inputs.

    `ranker` is the digest of the model behind `embed`. State `quarantined` when no picture can be used; the manifest then
    says why and names none. Files that are left out of a set that can be used are the reason of an outcome that is ok.
    """
    started = time.perf_counter()
    path = workspace.manifest(concept.slug)
    try:
        mark = validate_fingerprint(concept, params, ranker)
        stored = table_metadata(path)
        stands = stored.get("fingerprint") == mark and workspace.report(concept.slug).is_file() and not force
        if stands:
            quarantine, left_out = stored["quarantine"], stored.get("left_out", "")
        else:
            validation = validate_concept(concept, params.validate_, embed)
            quarantine, left_out = validation.quarantine, validation.left_out
            write_manifest(workspace, concept, validation, params.validate_.background, mark)
    except ConceptError as error:
        path.unlink(missing_ok=True)  # what it says is of a set that is not there any more
        return Outcome("validate", concept.slug, "quarantined", time.perf_counter() - started, error.reason)
    state = "quarantined" if quarantine else "up-to-date" if stands else "done"
    return Outcome("validate", concept.slug, state, time.perf_counter() - started, quarantine or left_out, str(path), digest_file(path))
