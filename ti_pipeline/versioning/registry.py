"""A registry of learnt words in Git tags, as GTO writes and reads them: `gto show` lists it without this project.

fox@v0.0.2            a version; the tag's message is JSON with digest, provenance and scores
fox#approved#3        a stage of it: candidate, approved or retired
team/a=fox@v0.0.1     the same in a workspace that is the folder team/a of its repository
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import gto.api
from gto.base import VStage
from gto.exceptions import GTOException
from gto.registry import GitRegistry
from gto.tag import parse_name
from safetensors import safe_open
from scmrepo.exceptions import SCMError

from ti_pipeline.errors import ConceptError, ParamsError, PipelineError
from ti_pipeline.evaluation.report import LEARNT, concept_path, read_report
from ti_pipeline.files import digest_file
from ti_pipeline.stages.collection import present
from ti_pipeline.versioning import git
from ti_pipeline.workspace import Workspace

STAGES = ("candidate", "approved", "retired")
MEASURES = ("reconstruction", "editability")
_PROVENANCE = (
    "token", "kind", "initializer", "generator", "generator_digest", "pictures", "pictures_digest", "params", "precision", "steps",
    "final_loss", "version", "fingerprint",
)  # fmt: skip


def register(workspace: Workspace, concept: str) -> str:
    """A version of the concept's word, at the commit that has its record, as `candidate`; returns `concept@version`.

    The version that stands when the word is still that one. Raises ConceptError when Git does not have the record.
    """
    root, path = workspace.root, workspace.embedding(concept)
    if not path.is_file():
        raise ConceptError(concept, f"{path}: there is no learnt word. Train it first.")
    if concept not in present(workspace):
        raise ConceptError(concept, f"it is withdrawn: {workspace.concepts / concept} is not there. Its earlier versions stay.")
    digest = digest_file(path)
    known = versions(root, concept)
    if known and known[-1]["digest"] == digest:
        if not known[-1]["stage"]:
            promote(root, concept, known[-1]["version"], STAGES[0])  # a run was killed between the two tags
        return f"{concept}@{known[-1]['version']}"
    commit = _recorded(workspace, concept)
    with safe_open(path, framework="pt") as file:
        stored = file.metadata() or {}
    setup = ((read_report(concept_path(workspace, concept)) or {}).get("setups") or {}).get(LEARNT) or {}
    scores = {measure: (setup.get(measure) or {}).get("value") for measure in MEASURES}
    about = {"digest": digest, "path": path.relative_to(root).as_posix(), "scores": scores}
    about["provenance"] = {key: stored[key] for key in _PROVENANCE if key in stored}
    try:
        name = _before(root) + concept
        made = gto.api.register(str(git.top(root)), name, commit, message=json.dumps(about, sort_keys=True), **_author(root))
    except (GTOException, SCMError) as error:
        raise ConceptError(concept, f"GTO: {error}") from None
    promote(root, concept, made.version, STAGES[0])
    return f"{concept}@{made.version}"


def register_changed(workspace: Workspace) -> list[str]:
    """A version of every current concept's word that differs from its last one; returns the new ones."""
    before = {f"{row['concept']}@{row['version']}" for row in versions(workspace.root)}
    folder = workspace.artifacts / "embeddings"
    found = sorted(present(workspace) & {path.parent.name for path in folder.glob("*/learned_embeds.safetensors")})
    return [name for name in (register(workspace, concept) for concept in found) if name not in before]


def promote(root: Path, concept: str, version: str | None, stage: str) -> str:
    """Put a version, without a name the last, into a stage; returns `concept@version`.

    Raises ParamsError for a stage or version that does not exist.
    """
    if stage not in STAGES:
        raise ParamsError(f"{stage}: there is no such stage. There are {', '.join(STAGES)}.")
    row = find(root, concept, version)
    name = f"{concept}@{row['version']}"
    if row["stage"] == stage:
        return name
    try:
        said = f"{concept} {row['version']} is {stage}"
        # forced, since to GTO a version that has been in a stage still is, whatever came after
        whole, of = str(git.top(root)), _before(root) + concept
        gto.api.assign(whole, of, stage, version=row["version"], message=said, force=True, **_author(root))
    except (GTOException, SCMError) as error:
        raise PipelineError(f"{name}: GTO: {error}") from None
    return name


def versions(root: Path, concept: str | None = None) -> list[dict[str, Any]]:
    """Every version, oldest first within a concept: concept, version, stage (the last one given), commit, at, digest, scores,
    provenance."""
    if not git.in_git(root):
        raise PipelineError(f"{root} is not a Git repository; the registry is in Git's tags.")
    if not git.has_commit(root):
        return []
    with GitRegistry.from_url(str(git.top(root))) as registry:
        artifacts = registry.get_artifacts()
    rows, before = [], _before(root)
    for known in sorted(artifacts):
        name = known.removeprefix(before)
        if known != before + name or ":" in name or (concept is not None and name != concept):
            continue
        for version in artifacts[known].get_versions(include_non_explicit=False, ascending=True):
            event = version.authoring_event
            stages = [stage.stage for stage in sorted(version.get_vstages(), key=_given)]
            about = _about(event.message)
            rows.append(
                {
                    "concept": name, "version": version.version, "stage": stages[-1] if stages else "", "commit": version.commit_hexsha,
                    "at": event.created_at.isoformat(), **about,
                }
            )  # fmt: skip
    return rows


def find(root: Path, concept: str, version: str | None) -> dict[str, Any]:
    """One version; the last one by default. Raises ParamsError that lists the existing ones."""
    rows = versions(root, concept)
    wanted = version if version is None or version.startswith("v") else f"v{version}"
    chosen = [row for row in rows if wanted is None or row["version"] == wanted]
    if not chosen:
        there = ", ".join(row["version"] for row in rows) or "none; `ti-pipeline register` makes one"
        raise ParamsError(f"{concept}{f'@{version}' if version else ''}: there is no such version. There are: {there}.")
    return chosen[-1]


def _before(root: Path) -> str:
    """The prefix of a concept's name in GTO, where the workspace is a folder of its repository."""
    folder = root.resolve().relative_to(git.top(root)).as_posix()
    return "" if folder == "." else f"{folder}:"


def _given(stage: VStage) -> tuple[datetime, int]:
    """When a version came into a stage; tags of one second are told apart by the number in their name."""
    return max((event.created_at, parse_name(event.tag).get("counter", 0)) for event in stage.assignments)


def _about(message: str) -> dict[str, Any]:
    try:
        about = json.loads(message)
    except ValueError:
        about = {}  # a version that somebody has registered with `gto register`
    about = about if isinstance(about, dict) else {}
    return {"digest": about.get("digest", ""), "scores": about.get("scores", {}), "provenance": about.get("provenance", {})}


def _recorded(workspace: Workspace, concept: str) -> str:
    """The commit whose record has the concept's word as it lies in the workspace."""
    from ti_pipeline.versioning.remote import recorded
    from ti_pipeline.versioning.repository import repository

    root, path = workspace.root, workspace.embedding(concept)
    name = path.relative_to(root).as_posix()
    if git.changed(root, "dvc.lock") or not git.has_commit(root):
        raise ConceptError(concept, "Git does not have DVC's current record. Commit dvc.lock, or set versions.commit in params.yaml.")
    with repository(root) as repo:
        if recorded(repo, [name]).get(name) != _md5(path):
            raise ConceptError(concept, "its word differs from DVC's record. Run `ti-pipeline record` first.")
    return git.git(root, "log", "-1", "--format=%H", "--", "dvc.lock").strip()


def _md5(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _Author(TypedDict, total=False):
    author: str
    author_email: str


def _author(root: Path) -> _Author:
    if not git.identity(root):
        return {}
    return {"author": "ti-pipeline", "author_email": "ti-pipeline@localhost"}
