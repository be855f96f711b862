"""Do a version again: its exact inputs, settings and code, every stage, and what came out compared with what was recorded."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ti_pipeline.concepts.concept import SLUG
from ti_pipeline.errors import ParamsError, PipelineError
from ti_pipeline.params import Params, load
from ti_pipeline.stages.table import STAGES, always
from ti_pipeline.versioning import git
from ti_pipeline.versioning.leftovers import held_folder
from ti_pipeline.versioning.lock import alone, dvc_folder
from ti_pipeline.versioning.registry import find, versions
from ti_pipeline.versioning.remote import place, point, pull, recorded, restore
from ti_pipeline.versioning.repository import repository
from ti_pipeline.workspace import Workspace

# One process for all stages, with the commit's own code where the workspace has it.
_RUN = """import sys
from ti_pipeline.cli import main
concept, *stages = sys.argv[1:]
for stage in stages:
    print(stage, flush=True)
    sys.argv[1:] = [stage, concept, "--workspace", ".", "--json"]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


@dataclass(frozen=True)
class Reproduction:
    """`equal` files of `compared`; `differ` {path: how}. The commit is that of the version, or the present one."""

    concept: str
    version: str
    commit: str
    compared: int = 0
    differ: dict[str, str] = field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return self.compared > 0 and not self.differ

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"equal": self.equal}

    def __str__(self) -> str:
        name = f"{self.concept}{'@' + self.version if self.version else ''} ({self.commit[:12]})"
        if self.equal:
            return f"{name}: equal, all {self.compared} files"
        lines = "".join(f"\n  {path}: {how}" for path, how in self.differ.items())
        return f"{name}: {len(self.differ)} of {self.compared} files differ{lines}"


def reproduce(
    workspace: Workspace, params: Params, wanted: str, say: Callable[[str], None], stages: Sequence[str] = tuple(always())
) -> Reproduction:
    """Run `concept[@version]` again in a folder of its own and compare the digests. Raises PipelineError.

    Without a version it is the last registered one, or HEAD where there is none. `params` say where the storage is, no more.
    """
    root = workspace.root
    concept, _, version = wanted.partition("@")
    if not SLUG.fullmatch(concept):
        raise ParamsError(f"{concept or wanted!r} is no concept's name. Give one as `fox` or `fox@v0.0.1`.")
    row = find(root, concept, version or None) if version or versions(root, concept) else {}
    if not row and not git.has_commit(root):
        raise PipelineError(f"{root}: there is no commit yet, so nothing is recorded. Commit, then run `ti-pipeline record`.")
    commit = row.get("commit") or git.git(root, "rev-parse", "HEAD").strip()
    whole = git.top(root)
    with held_folder((dvc_folder(root) or root / ".dvc") / "tmp", "reproduce-") as folder:
        cloned = folder / "repository"
        git.git(root, "clone", "--quiet", "--no-checkout", str(whole), str(cloned))
        git.git(cloned, "checkout", "--quiet", "--detach", commit)
        again = cloned / root.relative_to(whole)
        if not (again / "params.yaml").is_file():
            missing = root.relative_to(whole) / "params.yaml"
            raise PipelineError(f"{concept}: commit {commit[:12]} has no {missing}. It was no workspace then.")
        expected = _inputs(root, again, params, concept, stages, say)
        _run(stages, concept, again)
        return Reproduction(concept, row.get("version", ""), commit, len(expected), _compare(again, expected))


def _inputs(root: Path, again: Path, params: Params, concept: str, stages: Sequence[str], say: Callable[[str], None]) -> dict[str, str]:
    """Bring the concept's pictures; returns what the record says of its outputs."""
    with repository(root) as here:
        cache = Path(here.cache.legacy.path).resolve()
    folder = dvc_folder(again) or again / ".dvc"
    folder.mkdir(exist_ok=True)
    (folder / "config.local").write_text(f"[cache]\n    dir = {cache}\n")
    then = load(again / "params.yaml")
    pictures = f"{then.concepts.folder.rstrip('/')}/{concept}"
    outputs = [f"artifacts/{STAGES[stage].output}/{place.format(concept)}" for stage in stages for place in STAGES[stage].places]
    with alone(root, "reproducing", say), repository(again) as repo:  # it writes to the workspace's cache
        lost: dict[str, str] = {}
        if params.storage.bucket:
            point(again, params.storage)
            repo.config.load()
            lost = pull(repo, place(root, params.storage), params.storage, [pictures]).lost
        if lost:
            raise PipelineError("\n".join(f"{path}: {why}" for path, why in lost.items()))
        restore(repo, [], [pictures])
        expected = {path: digest for path, digest in recorded(repo, outputs).items()}
    if not (again / pictures).is_dir():
        raise PipelineError(f"{concept}: its pictures are neither in that commit nor in its record ({pictures}).")
    if not expected:
        raise PipelineError(f"{concept}: that record has no outputs of it. Record a run first.")
    say(f"{concept}: its pictures are back, {len(expected)} files to compare")
    return expected


def _run(stages: Sequence[str], concept: str, again: Path) -> None:
    installed = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(part for part in (str(again), installed, os.environ.get("PYTHONPATH", "")) if part)
    command = [sys.executable, "-c", _RUN, concept, *stages]
    ran = subprocess.run(command, cwd=again, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    if ran.returncode:
        reasons = [json.loads(text) for text in re.findall(r'^ +"reason": (".+"),?$', ran.stdout, re.MULTILINE)]
        told = reasons or ran.stderr.strip().splitlines()[-3:]
        raise PipelineError(f"{concept}: its stages did not end well: {' '.join(told)}")


def _compare(again: Path, expected: dict[str, str]) -> dict[str, str]:
    differ = {}
    for path, digest in sorted(expected.items()):
        if not (again / path).is_file():
            differ[path] = "was recorded and is not made any more"
            continue
        made = hashlib.md5((again / path).read_bytes(), usedforsecurity=False).hexdigest()
        if made != digest:
            differ[path] = f"recorded {digest}, now {made}"
    return differ
