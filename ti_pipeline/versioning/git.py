"""The few things that are asked of Git, by its own program."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from ti_pipeline.errors import PipelineError

LOCK_SECONDS = 10.0  # another git, or one that a killed run has left to finish
_IDENTITY = {"user.name": "ti-pipeline", "user.email": "ti-pipeline@localhost"}  # where the machine has none


def git(root: Path, *words: str) -> str:
    """The output of `git …` in `root`. Raises PipelineError with what it said.

    It runs in a session of its own: a signal to our process group must not leave an index half written.
    """
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            ran = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, start_new_session=True)
        except FileNotFoundError:
            raise PipelineError("git: the program is not installed here.") from None
        if ran.returncode == 0:
            return ran.stdout
        if ".lock': File exists" not in ran.stderr or time.monotonic() > until:
            raise PipelineError(f"git {words[0]}: {(ran.stderr or ran.stdout).strip()}")
        time.sleep(0.1)


def in_git(root: Path) -> bool:
    try:
        return bool(git(root, "rev-parse", "--show-toplevel").strip())
    except PipelineError:
        return False


def has_commit(root: Path) -> bool:
    try:
        return bool(git(root, "rev-parse", "--verify", "HEAD"))
    except PipelineError:
        return False


def tracked(root: Path, path: Path) -> bool:
    """Whether Git has the file, or anything below the folder."""
    return bool(git(root, "ls-files", "--", str(path)).strip())


def changed(root: Path, *paths: str) -> list[str]:
    """Those of the paths, or files below them, that differ from HEAD or that Git does not know."""
    out = git(root, "-c", "core.quotePath=false", "status", "--porcelain", "--no-renames", "--untracked-files=all", "--", *paths)
    return sorted(line[3:].strip('"') for line in out.splitlines())


def commit(root: Path, message: str, paths: list[str]) -> str:
    """Commit these paths and no others, whatever else is staged; returns the commit."""
    git(root, "add", "--", *paths)
    git(root, *identity(root), "commit", "--quiet", "--message", message, "--only", "--", *paths)
    return git(root, "rev-parse", "HEAD").strip()


def tag(root: Path, name: str, message: str, commit: str) -> None:
    git(root, *identity(root), "tag", "--annotate", name, "--message", message, commit)


def identity(root: Path) -> list[str]:
    words = []
    for key, value in _IDENTITY.items():
        try:
            git(root, "config", key)
        except PipelineError:
            words += ["-c", f"{key}={value}"]
    return words
