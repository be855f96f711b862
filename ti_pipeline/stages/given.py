"""Words that were learnt elsewhere and lie in their concept's folder: `train` takes them over as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.folder import list_folder
from ti_pipeline.concepts.manifest import Manifest
from ti_pipeline.concepts.settings import read_settings
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file
from ti_pipeline.stages.learnt import Wanted
from ti_pipeline.workspace import Outcome, Workspace, fingerprint

VERSION = 1


def given_wanted(manifest: Manifest) -> Wanted:
    """It depends on the word's file and on what the manifest says of it."""
    wanted = fingerprint("train", VERSION, {"given": manifest.word, "manifest": manifest.training_digest}, {})
    return Wanted(wanted, wanted)


def standing_given(workspace: Workspace, concept: str, wanted: Wanted) -> Outcome | None:
    from ti_pipeline.words.headers import word_fingerprint

    path = workspace.embedding(concept)
    if word_fingerprint(path) != wanted.word:
        return None
    return Outcome("train", concept, "up-to-date", path=str(path), digest=digest_file(path))


def take_over(workspace: Workspace, manifest: Manifest, wanted: Wanted) -> Path:
    """Write the word as the concept's own. Raises ParamsError or ConceptError when its file is gone, or another by now."""
    from ti_pipeline.words.files import read_word, write_word

    slug, folder = manifest.slug, workspace.concepts / manifest.slug
    source = folder / (read_settings(slug, folder, list_folder(folder)).word or "")
    if load_concept(folder).word != manifest.word:
        raise ConceptError(slug, f"{source.name} has changed since it was validated. Run `ti-pipeline validate {slug}`.")
    word = read_word(source)
    about = {key: value for key, value in word.provenance.items() if not key.startswith("modelspec.")}
    initializer = manifest.initializer or about.get("initializer", "")
    about |= {"concept": slug, "kind": manifest.kind, "token": manifest.token, "fingerprint": wanted.word}
    about |= {"initializer": initializer} if initializer else {}
    for other in (workspace.training(slug), workspace.steps(slug), workspace.curve(slug), workspace.strip(slug)):
        other.unlink(missing_ok=True)  # of a word that was learnt here before
    write_word(workspace.embedding(slug), replace(word, token=manifest.token, provenance=about))
    return workspace.embedding(slug)
