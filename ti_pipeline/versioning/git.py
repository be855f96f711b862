"""The few things that are asked of Git, by its own program."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from ti_pipeline.errors import PipelineError

LOCK_SECONDS = 10.0  # another git, or one that a killed run has left to finish
_IDENTITY = {"user.name": "ti-pipeline", "user.email": "ti-pipeline@localhost"}  # where the machine has none


class GitError(PipelineError):
    """Git refused; `code` is its program's exit status, `said` its own words."""

    status = 3

    def __init__(self, message: str, code: int, said: str):
        super().__init__(message)
        self.code, self.said = code, said


class NoGit(PipelineError):
    """Git's program is not there."""

    status = 3


def git(root: Path, *words: str) -> str:
    """The output of `git …` in `root`. Raises GitError with what it said and what to do, NoGit if Git is not installed.

    It runs in a session of its own: a signal to our process group must not leave an index half written.
    """
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            ran = subprocess.run(
                ["git", *words], cwd=root, env=os.environ | {"LC_ALL": "C"}, capture_output=True, text=True, start_new_session=True
            )
        except FileNotFoundError as error:
            if error.filename != "git":
                raise
            raise NoGit("git: the program is not installed here. Install Git and run this again.") from None
        if ran.returncode == 0:
            return ran.stdout
        said = (ran.stderr or ran.stdout).strip()
        if ".lock': File exists" not in said or time.monotonic() > until:
            raise GitError(f"git {words[0]}: {_told(root, said)}", ran.returncode, said)
        time.sleep(0.1)


def _told(root: Path, said: str) -> str:
    if "detected dubious ownership" in said:
        owned = said.split("'")[1] if "'" in said else str(root)
        return (
            f"{owned} belongs to another user, and Git does not trust it. Run `git config --global --add safe.directory {owned}` "
            "as the user that runs this, or give the folder to that user."
        )
    if ".lock': File exists" in said:
        lock = said.split("'")[1]
        return f"another Git process holds {lock}, or one that died left it there. If no Git is running, remove it and run this again."
    return said or "it failed without a message"


def in_git(root: Path) -> bool:
    """Whether `root` lies in a Git repository. Raises PipelineError where there is one that Git cannot or will not read."""
    try:
        return bool(git(root, "rev-parse", "--show-toplevel").strip())
    except NoGit:
        if any((folder / ".git").exists() for folder in (root, *root.parents)):
            raise
        return False
    except GitError as error:
        if "not a git repository" in error.said:
            return False
        raise


def top(root: Path) -> Path:
    """The repository's own folder; `root` is that or lies below it."""
    return Path(git(root, "rev-parse", "--show-toplevel").rstrip("\n"))


def has_commit(root: Path) -> bool:
    """Raises PipelineError where Git cannot say."""
    try:
        return bool(git(root, "rev-parse", "--verify", "--quiet", "HEAD"))
    except GitError as error:
        if error.said:
            raise
        return False


def tracked(root: Path, path: Path) -> bool:
    """Whether Git has the file, or anything below the folder."""
    return bool(git(root, "ls-files", "--", str(path)).strip())


def changed(root: Path, *paths: str) -> list[str]:
    """Those of the paths, or files below them, that differ from HEAD or that Git does not know; relative to `root`."""
    out = git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths)
    whole = top(root)
    return sorted(os.path.relpath(whole / entry[3:], root.resolve()) for entry in out.split("\0") if entry)


def commit(root: Path, message: str, paths: list[str]) -> str:
    """Commit these paths and no others, whatever else is staged; returns the commit."""
    git(root, "add", "--", *paths)
    git(root, *identity(root), "commit", "--quiet", "--message", message, "--only", "--", *paths)
    return git(root, "rev-parse", "HEAD").strip()


def tag(root: Path, name: str, message: str, commit: str) -> None:
    git(root, *identity(root), "tag", "--annotate", name, "--message", message, commit)


def identity(root: Path) -> list[str]:
    """Options that give a commit an author where the machine has none."""
    words = []
    for key, value in _IDENTITY.items():
        try:
            git(root, "config", key)
        except GitError as error:
            if error.code != 1:  # anything but a key that is not set
                raise
            words += ["-c", f"{key}={value}"]
    return words
