"""Learnt words to the Hugging Face hub: of each concept that `publish.hub` names, the repository that `ti-pipeline export` writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.concepts.texts import visible
from ti_pipeline.errors import ConceptError, without_passwords
from ti_pipeline.params import Params
from ti_pipeline.stages.collection import present
from ti_pipeline.versioning.lock import alone
from ti_pipeline.versioning.shown import unrecorded, usual_place
from ti_pipeline.words.export import Export, export_of
from ti_pipeline.words.names import names_for
from ti_pipeline.words.repository import OWN_FOLDERS
from ti_pipeline.words.tools import TOOLS
from ti_pipeline.workspace import CANDIDATES, EMBEDDINGS, RANKINGS, Workspace

if TYPE_CHECKING:
    from huggingface_hub import HfApi

REPOSITORY = TOOLS["sd-concepts"]


@dataclass(frozen=True)
class Uploaded:
    """What became of a concept's word: `state` uploaded, up-to-date, withheld (it is not recorded) or failed, the last two with the
    `reason`; `url` where it is seen."""

    concept: str
    state: str
    url: str = ""
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.state in ("uploaded", "up-to-date")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return visible(f"{self.concept}: {self.state}{': ' if self.reason or self.url else ''}{self.reason or self.url}")


def upload(workspace: Workspace, params: Params, say: Callable[[object], None]) -> list[Uploaded]:
    """Bring every repository up to date that `publish.hub` names. One that cannot be is said, and the others go on.

    To a repository that params.yaml names goes only what is recorded, as with galleries. Equal content is not sent again.
    """
    if not params.publish.hub:
        return []
    from huggingface_hub import HfApi

    api = HfApi(library_name="ti-pipeline")
    with alone(workspace.root, "publishing", say):
        return [_upload_one(api, workspace, params, concept) for concept in sorted(params.publish.hub)]


def _upload_one(api: HfApi, workspace: Workspace, params: Params, concept: str) -> Uploaded:
    name = params.publish.hub[concept]
    url = f"{api.endpoint}/{name}"
    try:
        if concept not in present(workspace):
            raise ConceptError(concept, f"there is no such concept in {workspace.concepts}. Take it out of publish.hub.")
        if why := _withheld(workspace, params, concept):
            return Uploaded(concept, "withheld", reason=why)
        export = replace(export_of(workspace, read_manifest(workspace, concept), names_for([concept])[concept]), hub=name)
        if REPOSITORY not in export.tools:
            raise ConceptError(concept, "the layout of these repositories is for words that diffusers loads into one text encoder.")
        return Uploaded(concept, "uploaded" if _bring(api, export, params.publish.hub_private) else "up-to-date", url)
    except ConceptError as error:
        return Uploaded(concept, "failed", reason=error.reason)
    except Exception as error:  # the hub, the way to it, or what it thinks of the files: the other concepts go on
        return Uploaded(concept, "failed", reason=_told(error, name))


def _withheld(workspace: Workspace, params: Params, concept: str) -> str:
    usual = usual_place(workspace)
    if usual is None or params.publish.hub[concept] != usual.hub.get(concept):
        return ""
    files = {f"{EMBEDDINGS}/{concept}/{path.name}": path for path in [workspace.embedding(concept)]}
    files |= {f"{RANKINGS}/{path.name}": path for path in [workspace.ranking(concept)] if path.is_file()}
    files |= {f"{CANDIDATES}/{concept}/{path.name}": path for path in [workspace.candidate_table(concept)] if path.is_file()}
    return unrecorded(workspace, params, files)


def _bring(api: HfApi, export: Export, private: bool) -> bool:
    """Whether anything had to be sent. What differs goes up in one commit, so that readers see the old word or the new one."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files = {name.removeprefix(f"{export.name}/"): content for name, content in export.files(REPOSITORY).items()}
    there = _there(api, export.hub)
    known = there or {}
    adds = [CommitOperationAdd(name, content) for name, content in files.items() if known.get(name) not in _digests(content)]
    gone = [CommitOperationDelete(name) for name in known if name.startswith(OWN_FOLDERS) and name not in files]
    if not adds and not gone:
        return False
    if there is None:
        api.create_repo(export.hub, private=private, exist_ok=True)
    api.create_commit(export.hub, [*adds, *gone], commit_message=f"The word {export.token}")
    return True


def _there(api: HfApi, name: str) -> Mapping[str, str] | None:
    """Digest of each file of a repository: SHA-256 of large ones, Git's of others; None when it is not there, or not for us to see."""
    from huggingface_hub import RepoFile
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        tree = [entry for entry in api.list_repo_tree(name, recursive=True) if isinstance(entry, RepoFile)]
    except RepositoryNotFoundError:
        return None
    return {entry.path: entry.lfs.sha256 if entry.lfs else entry.blob_id for entry in tree}


def _digests(content: bytes) -> tuple[str, str]:
    blob = b"blob %d\0%b" % (len(content), content)
    return hashlib.sha256(content).hexdigest(), hashlib.sha1(blob, usedforsecurity=False).hexdigest()


def _told(error: Exception, name: str) -> str:
    cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # which file it was says less than why
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the hub does not let us write to {name}. Log in with `hf auth login`, or set HF_TOKEN to a token that may."
    first = next(iter(str(cause).strip().splitlines()), "")[:200]
    return without_passwords(f"{name}: not uploaded ({type(cause).__name__}: {first}). The next run tries again.")
