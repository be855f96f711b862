"""What of a workspace is shown to readers, and why it may be withheld."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ti_pipeline.errors import ParamsError, PipelineError
from ti_pipeline.gallery.build import read_page
from ti_pipeline.params import Params, load
from ti_pipeline.stages.collection import present
from ti_pipeline.versioning.lock import dvc_folder
from ti_pipeline.versioning.record import LOCK, other_settings
from ti_pipeline.versioning.remote import unlike
from ti_pipeline.versioning.repository import repository
from ti_pipeline.versioning.settings import Publish
from ti_pipeline.workspace import Workspace

SITE = ("_site", "_questionnaire")  # folders of the gallery that belong to no concept
_LINK = re.compile(r'href="([a-z0-9][a-z0-9_-]*)/index\.html"')  # to a concept's page


def for_readers(workspace: Workspace) -> dict[str, Path]:
    """{name in the build: path}: the pages over all concepts, and what current concepts own, as each page's `page.json` names it.

    Raises PipelineError if there is no gallery, if it shows a withdrawn concept, or if it is incomplete.
    """
    galleries, index = workspace.galleries, workspace.galleries / "index.html"
    if not index.is_file():
        raise PipelineError(f"{galleries}: there is no gallery to publish. Run `ti-pipeline gallery` first.")
    slugs = present(workspace)
    withdrawn = set(_LINK.findall(index.read_text(encoding="utf-8"))) - slugs
    if withdrawn:
        raise PipelineError(f"{index} still shows what is withdrawn: {_few(withdrawn)}. Run `ti-pipeline gallery` first.")
    found = {path.name: path for path in galleries.iterdir() if path.is_file() and not path.name.startswith(".")}
    found |= {f"{site}/{name}": path for site in SITE for name, path in _below(galleries / site)}
    for slug in slugs:
        page = read_page(galleries / slug / "page.json") or {"files": ()}
        found |= {f"{slug}/{name}": galleries / slug / name for name in (*page["files"], *["page.json"] * bool(page["files"]))}
    found = {f"galleries/{name}": path for name, path in found.items()}
    if missing := [name for name, path in found.items() if not path.is_file()]:
        raise PipelineError(f"{workspace.artifacts}: {_few(missing)} not there. Run `ti-pipeline gallery` first.")
    return dict(sorted(found.items()))


def withheld(workspace: Workspace, params: Params, files: Mapping[str, Path]) -> str:
    """Why the files are not for the place that params.yaml names; empty when they are, or when `params` name another place."""
    usual = usual_place(workspace)
    if usual is None or (params.publish.bucket, params.publish.prefix.strip("/")) != (usual.bucket, usual.prefix.strip("/")):
        return ""
    beside = f"`--set publish.prefix={usual.prefix.strip('/') or 'galleries'}-trial` publishes it at a place of its own."
    why = unrecorded(workspace, params, files)
    return f"{why} {beside}" if why else ""


def usual_place(workspace: Workspace) -> Publish | None:
    """What params.yaml names; None where, as with --params, there are no usual settings to differ from."""
    try:
        return load(workspace.root / "params.yaml").publish
    except ParamsError:
        return None


def unrecorded(workspace: Workspace, params: Params, files: Mapping[str, Path]) -> str:
    """Why files {name below artifacts/: path} are not what everybody has: other settings, or not in DVC's record; empty when they are."""
    root = workspace.root
    if other := other_settings(root, params):
        return f"this run's settings differ from {root / 'params.yaml'}: {', '.join(other)}."
    if params.versions.record and dvc_folder(root) and (root / LOCK).is_file():
        with repository(root) as repo:
            differ = unlike(repo, {f"artifacts/{name}": path for name, path in files.items()})
        if differ:
            return f"the results here differ from DVC's record: {_few(differ)}. Run `ti-pipeline record` first."
    return ""


def _below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file and its name relative to the folder; none that is hidden, as half-written ones are."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            yield name.as_posix(), path


def _few(names: set[str] | list[str]) -> str:
    return f"{', '.join(sorted(names)[:5])}{' …' if len(names) > 5 else ''}"
