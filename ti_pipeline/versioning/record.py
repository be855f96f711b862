"""The versioning step: what a run has changed goes to DVC, from there to the remote, and, if asked, to Git."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException

from ti_pipeline.errors import ConceptError, ParamsError, PipelineError
from ti_pipeline.params import Params, load
from ti_pipeline.stages.collection import validated
from ti_pipeline.stages.stage import Run, Stage
from ti_pipeline.stages.status import survey
from ti_pipeline.stages.table import STAGES, with_something_to_do
from ti_pipeline.versioning import git
from ti_pipeline.versioning.disk import refusal
from ti_pipeline.versioning.leftovers import sweep
from ti_pipeline.versioning.lock import alone, dvc_folder
from ti_pipeline.versioning.remote import Transfer, check_kept, place, point, push
from ti_pipeline.versioning.repository import Recorded, repository
from ti_pipeline.workspace import CHOICES, Workspace

RECORD_TAG = re.compile(r"run/(\d+)")
SETTLES = ("storage", "versions", "inbox", "publish")  # sections that no result depends on
LOCK = "dvc.lock"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Record:
    """What the step has done, as JSON. `left_out` {stage: why it is not recorded}; `not_pushed` why, empty when pushed."""

    recorded: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    pushed: dict[str, int] = field(default_factory=dict)
    not_pushed: str = ""
    commit: str = ""
    tag: str = ""
    registered: list[str] = field(default_factory=list)
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        if self.reason:
            return f"not recorded and not pushed: {self.reason}"
        said = [f"recorded: {', '.join(self.recorded) or 'nothing has changed'}"]
        said += [f"{stage} not recorded: {why}" for stage, why in self.left_out.items()]
        said.append(
            f"not pushed: {self.not_pushed}"
            if self.not_pushed
            else f"pushed: {self.pushed['objects']} objects, {self.pushed['bytes']} bytes"
        )
        said += [f"Git commit {self.commit[:12]}"] if self.commit else []
        said += [f"tag {self.tag}"] if self.tag else []
        said += [f"registered: {', '.join(self.registered)}"] if self.registered else []
        return "; ".join(said)


def record(workspace: Workspace, params: Params, say: Say, *, lost: Iterable[str] = (), force: bool = False) -> Record:
    """Commit to DVC what has changed, push it, and make the Git commit, the tag and the versions that are asked for.

    A stage is recorded when every concept's output stands under its present inputs; `lost` are concepts that the run has tried
    and reported. With `force` every stage is recorded as it is. Waits for another one in the same workspace.
    Raises PipelineError; what is done by then stays, and the same call continues from there.
    """
    if why := _cannot(workspace, params):
        return Record(reason=why, not_pushed=why)
    with alone(workspace.root, "versioning", say), repository(workspace.root) as repo:
        sweep(repo)
        left_out = {} if force else _unfinished(workspace, params, set(lost))
        recorded = _commit(repo, workspace, [stage for stage in STAGES if stage not in left_out])
        pushed, not_pushed = _push(repo, workspace.root, params)
        made = tagged = ""
        registered: list[str] = []
        if params.versions.commit:
            if not git.in_git(workspace.root):
                raise PipelineError(
                    f"not committed to Git: {workspace.root} is not in a Git repository. Run `git init` there, or set versions.commit to "
                    "false in params.yaml; DVC already has its record."
                )
            made = _git_commit(repo, workspace.root, recorded)
            if params.versions.tag:
                tagged = _git_tag(workspace.root)
            if params.versions.register_:
                from ti_pipeline.versioning.registry import register_changed

                registered = register_changed(workspace)
        return Record(recorded, left_out, asdict(pushed), not_pushed, made, tagged, registered)


def _cannot(workspace: Workspace, params: Params) -> str:
    root = workspace.root
    if not params.versions.record:
        return "versions.record is false in params.yaml"
    if not dvc_folder(root) or not (root / "dvc.yaml").is_file():
        return f"{root} has no .dvc or dvc.yaml. Run `ti-pipeline init {root}`; what is there stays"
    try:
        other = other_settings(root, params)
    except ParamsError as error:
        return str(error)
    return f"this run's settings differ from {root / 'params.yaml'}: {', '.join(other)}. Change them there and run again" if other else ""


def other_settings(root: Path, params: Params) -> list[str]:
    """Sections that results depend on and that differ from the workspace's params.yaml. Raises ParamsError when it cannot be read."""
    sections = [name for name in params.model_dump(by_alias=True) if name not in SETTLES]
    ours, theirs = params.section(*sections), load(root / "params.yaml").section(*sections)
    return [name for name in sections if ours[name] != theirs[name]]


def _unfinished(workspace: Workspace, params: Params, lost: set[str]) -> dict[str, str]:
    """Stages whose output is not wholly what their present inputs give, with the concepts; those behind them are among them."""
    rows = survey(workspace, params)
    found: dict[str, str] = {}
    for stage in with_something_to_do(params):
        slugs = [row["concept"] for row in rows if row["stages"][stage] in ("stale", "missing", "failed") and row["concept"] not in lost]
        if slugs:
            found[stage] = f"{', '.join(slugs[:5])}{' …' if len(slugs) > 5 else ''} not up to date; run the stage over all concepts"
    run = Run.over(workspace, params)
    for stage in STAGES:
        if stage not in with_something_to_do(params) and not _is_noted(STAGES[stage], run):
            found[stage] = f"nothing is asked of it, and that is not noted down yet; run `ti-pipeline {stage}`"
    return found


def _is_noted(stage: Stage, run: Run) -> bool:
    """Whether the output of a stage that has nothing to do says so."""
    for slug in validated(run.workspace):
        try:
            return stage.plan(run, slug).stands is not None
        except ConceptError:  # in quarantine: the next one knows as well
            continue
    return False


def _commit(repo: Recorded, workspace: Workspace, stages: list[str]) -> list[str]:
    """Commit the image sets and the stages that differ from the record; returns their names."""
    _mend(workspace.root)
    repo._reset()  # forget what was read before files were repaired
    try:
        done = _add_concepts(repo, workspace)
        known = {stage.name for stage in repo.index.stages if stage.path == str(workspace.root / "dvc.yaml")}
        for stage in (stage for stage in stages if stage in known):
            address = f"{workspace.root / 'dvc.yaml'}:{stage}"  # without the file DVC looks in the current folder
            if repo.status(targets=[address]):
                repo.commit(address, force=True)
                done.append(stage)
        check_kept(repo, done)
    except DvcException as error:
        if refused := refusal(error):
            raise OSError(refused.errno, refused.strerror, refused.filename or repo.cache.local.path) from None
        raise PipelineError(f"DVC could not record it: {_chain(error)}. What is done is kept: the next run continues from there.") from None
    return done


def _add_concepts(repo: Recorded, workspace: Workspace) -> list[str]:
    """Image sets that lie in the workspace and not in Git come under DVC."""
    folder, root = workspace.concepts, workspace.root
    pointer = folder.with_name(f"{folder.name}.dvc")
    if not folder.is_relative_to(root) or (not pointer.is_file() and git.in_git(root) and git.tracked(root, folder)):
        return []
    if pointer.is_file() and not repo.status(targets=[str(pointer)]):
        return []
    repo.add(str(folder))
    return [folder.relative_to(root).as_posix()]


def _mend(root: Path) -> None:
    """Take away what a killed process has left half written: DVC writes its own files in place. They are written anew from what
    stands in the workspace, and Git has the older versions. A broken table of its locks would stop DVC for good."""
    for path in (root / LOCK, *root.glob("*.dvc"), *root.glob("*/*.dvc")):
        if not path.is_file():
            continue
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            content = None
        if not isinstance(content, dict) or not ({"stages", "outs"} & content.keys()):
            path.unlink()
    locks = (dvc_folder(root) or root / ".dvc") / "tmp" / "rwlock"
    try:
        json.loads(locks.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValueError:
        locks.unlink()


def _push(repo: Recorded, root: Path, params: Params) -> tuple[Transfer, str]:
    if not params.storage.bucket:
        return Transfer(), "storage.bucket is not set in params.yaml"
    point(root, params.storage)
    if not params.versions.push:
        return Transfer(), "versions.push is false in params.yaml"
    repo.config.load()
    return push(repo, place(root, params.storage), params.storage), ""


def _git_commit(repo: Recorded, root: Path, recorded: list[str]) -> str:
    """The record's own files, with params.yaml, dvc.yaml and what people said, and nothing else; empty when Git has them.

    Raises PipelineError when something that the record depends on differs from Git: the commit would not bring it back.
    """
    stages = [stage for stage in repo.index.stages if Path(stage.path).is_relative_to(root)]
    pointers = [Path(stage.path).relative_to(root).as_posix() for stage in stages if stage.path.endswith(".dvc")]
    own = [LOCK, "dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", *pointers]
    own += [(Path(pointer).parent / ".gitignore").as_posix() for pointer in pointers]
    own += git.changed(root, CHOICES)  # what people said, which rankings depend on
    made = [Path(out.fs_path) for out in repo.index.outs]
    read = {Path(dep.fs_path) for stage in stages for dep in stage.deps}
    whole = git.top(root)
    read = {path for path in read if path.is_relative_to(whole) and not any(path.is_relative_to(out) for out in made)}
    names = [str(path) for path in sorted(read)]
    other = sorted(set(git.changed(root, *names)) - set(own)) if names else []
    if other:
        raise PipelineError(
            f"not committed to Git: {', '.join(other[:5])}{' …' if len(other) > 5 else ''} differ from Git, and the record depends on "
            "them. Commit them first; DVC already has its record."
        )
    paths = git.changed(root, *dict.fromkeys(path for path in own if (root / path).exists()))
    if not paths:
        return ""
    what = ", ".join(recorded) or "what was recorded before"
    return git.commit(root, f"Record {what}", paths)


def _git_tag(root: Path) -> str:
    """The next run/N on the last commit of the record, unless it has one."""
    if not git.has_commit(root):
        return ""
    head = git.git(root, "log", "-1", "--format=%H", "--", LOCK).strip()
    if not head or any(RECORD_TAG.fullmatch(name) for name in git.git(root, "tag", "--points-at", head).split()):
        return ""
    numbers = [int(found[1]) for name in git.git(root, "tag", "--list", "run/*").split() if (found := RECORD_TAG.fullmatch(name))]
    name = f"run/{max(numbers, default=0) + 1}"
    git.tag(root, name, git.git(root, "log", "-1", "--format=%s", head).strip(), head)
    return name


def _chain(error: BaseException) -> str:
    parts = [str(error)]
    while error.__cause__ is not None:
        error = error.__cause__
        parts.append(str(error))
    return ": ".join(dict.fromkeys(part for part in parts if part))
