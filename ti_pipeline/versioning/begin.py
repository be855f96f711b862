"""A new workspace: its settings, DVC's pipeline, Prefect's deployments and an example, in a folder that may hold anything already."""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo

from ti_pipeline.errors import PipelineError
from ti_pipeline.files import write_text
from ti_pipeline.stages.declared import with_stages
from ti_pipeline.starter import EXAMPLES, starter
from ti_pipeline.versioning import git
from ti_pipeline.versioning.lock import dvc_folder
from ti_pipeline.workspace import CHOICES

CONCEPTS = "data/concepts"
EXAMPLE = "fox"


@dataclass(frozen=True)
class Begun:
    """What was written into the folder, and what was there and has stayed as it was; paths in it."""

    folder: Path
    wrote: list[str]
    kept: list[str]

    def __str__(self) -> str:
        lines = [f"Wrote into {self.folder}: {', '.join(self.wrote)}." if self.wrote else f"{self.folder} has all that it needs."]
        lines += [f"Left as they are: {', '.join(self.kept)}."] if self.kept else []
        return "\n".join([*lines, f"Next: cd {shlex.quote(str(self.folder))} && ti-pipeline run"])


def begin(folder: Path) -> Begun:
    """Write what a workspace lacks, the folder too; nothing that is there is changed. Raises PipelineError."""
    root = folder.expanduser().absolute()
    if root.exists() and not root.is_dir():
        raise PipelineError(f"{root} is a file. Give the name of a folder, new or old.")
    root.mkdir(parents=True, exist_ok=True)
    source, begun = starter(), Begun(root, [], [])
    texts = {name: (source / name).read_text(encoding="utf-8") for name in (".gitignore", ".dvcignore", "prefect.yaml", "automations.yaml")}
    texts["params.yaml"] = _params((source / "params.yaml").read_text(encoding="utf-8"))
    texts["dvc.yaml"] = with_stages((source / "dvc.yaml").read_text(encoding="utf-8"), clone=False)
    texts[f"{CHOICES}/README.md"] = (source / CHOICES / "README.md").read_text(encoding="utf-8")
    for name, text in texts.items():
        if _is_new(begun, name):
            write_text(root / name, text)
    if _is_new(begun, CONCEPTS):
        _example(source, root)
    _version(begun)
    return begun


def _is_new(begun: Begun, name: str) -> bool:
    new = not (begun.folder / name).exists()
    (begun.wrote if new else begun.kept).append(name)
    return new


def _params(text: str) -> str:
    """The settings of a clone, over image sets of one's own."""
    lines = text.split("\n")
    (at,) = [i for i, line in enumerate(lines) if line.startswith(f"  folder: {EXAMPLES} ")]
    lines[at] = f"  folder: {CONCEPTS}        # one folder of pictures per concept; the first run puts them under DVC"
    return "\n".join(lines)


def _example(source: Path, root: Path) -> None:
    """Under another name first, and whole: a folder of concepts that a killed call has half written would be taken for one's own."""
    half = root / CONCEPTS.replace("/", "/.")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source / EXAMPLES / EXAMPLE, half / EXAMPLE)
    half.rename(root / CONCEPTS)


def _version(begun: Begun) -> None:
    """A Git repository and DVC's folder, where the workspace lies in none; DVC alone on a machine without Git."""
    root = begun.folder
    if dvc_folder(root):
        begun.kept.append(".dvc")
        return
    has_git = True
    try:
        if not git.in_git(root):
            git.git(root, "init", "--quiet")
            begun.wrote.append(".git")
    except git.NoGit:
        has_git = False
    try:
        repo = Repo.init(str(root), no_scm=not has_git, subdir=has_git and git.top(root) != root.resolve())
        with repo.config.edit("repo") as config:
            config["core"]["analytics"] = False
        repo.close()
    except DvcException as error:
        raise PipelineError(f"{root}: DVC cannot begin there: {error}") from None
    begun.wrote.append(".dvc")
