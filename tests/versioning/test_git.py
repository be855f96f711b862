"""Git that cannot be asked is told from no Git at all, and a workspace may be a folder of its repository."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.versioning.small import SETS, bring, configured, digests, small_repository, write
from tests.versioning.test_record import dvc, step
from ti_pipeline.errors import PipelineError
from ti_pipeline.versioning import git
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.registry import promote, register, versions
from ti_pipeline.versioning.reproduce import reproduce
from ti_pipeline.workspace import Workspace

COMMITTING = {"commit": True, "tag": True}


def test_no_repository_is_said_and_the_record_stands(repository) -> None:
    shutil.rmtree(repository / ".git")
    dvc(repository, "config", "core.no_scm", "true")
    with pytest.raises(PipelineError, match="is not in a Git repository. Run `git init` there, or set versions.commit to false"):
        step(repository, configured("", None, versions=COMMITTING))
    assert "up to date" in dvc(repository, "status")


def test_no_program_is_said(repository, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(git.NoGit, match="the program is not installed here. Install Git"):
        step(repository, configured("", None, versions=COMMITTING))
    assert git.in_git(tmp_path) is False


@pytest.mark.skipif(os.geteuid() != 0, reason="runs as root only, who can give a folder to somebody else")
def test_dubious_ownership_is_said_with_the_remedy(repository, monkeypatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.delenv("SUDO_UID", raising=False)
    for path in (repository, repository / ".git"):
        os.chown(path, 12345, 12345)
    with pytest.raises(git.GitError, match=f"belongs to another user.*git config --global --add safe.directory {repository}"):
        step(repository, configured("", None, versions=COMMITTING))


def test_a_lock_that_somebody_left_is_named(repository, monkeypatch) -> None:
    monkeypatch.setattr(git, "LOCK_SECONDS", 0.0)
    lock = repository / ".git" / "index.lock"
    write(lock, b"")
    with pytest.raises(git.GitError, match=f"{lock}, or one that died left it there. If no Git is running, remove it"):
        step(repository, configured("", None, versions=COMMITTING))
    lock.unlink()
    assert step(repository, configured("", None, versions=COMMITTING)).tag == "run/1"


def test_without_an_identity_it_commits_under_its_own(repository, monkeypatch, tmp_path) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    done = step(repository, configured("", None, versions=COMMITTING))
    assert git.git(repository, "log", "-1", "--format=%an %ae", done.commit).strip() == "ti-pipeline ti-pipeline@localhost"


@pytest.fixture(params=["--subdir", "above"])
def folder(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace that is the folder team/a of its Git repository; DVC's own folder is in it, or above it."""
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    whole, root = tmp_path / "whole", tmp_path / "whole" / "team" / "a"
    whole.mkdir()
    root.parent.mkdir()
    small_repository(root)
    shutil.rmtree(root / ".git")
    if request.param == "above":
        (root / ".dvc").rename(whole / ".dvc")
        other = whole / "team" / "b"
        write(other / "large.bin", b"another team's")
    write(whole / "README.md", b"theirs")
    git.git(whole, "init", "--quiet", "--initial-branch=main")
    if request.param == "above":
        dvc(other, "add", "large.bin")
    git.commit(whole, "Start", ["."])
    for slug in SETS:
        word = root / "artifacts" / "embeddings" / slug / "learned_embeds.safetensors"
        save_file({"<x>": np.zeros((1, 4), np.float32)}, word, metadata={"generator": "miniature"})
    return root


def test_a_folder_of_a_repository_commits_pushes_and_comes_back(folder, params, admin, bucket, tmp_path) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update=COMMITTING | {"register_": True})})
    whole = git.top(folder)
    write(whole / "README.md", b"being edited by somebody")
    done = step(folder, committing)
    assert done.commit and done.tag == "run/1" and done.registered == [f"{slug}@v0.0.1" for slug in SETS]
    listed = git.git(whole, "show", "--name-only", "--format=", done.commit).split()
    assert sorted(listed) == ["team/a/data/concepts.dvc", "team/a/dvc.lock"]
    assert git.changed(folder, ".") == [] and git.changed(whole, ".") == ["README.md"]
    files = 9 + 6 * 3 + 1  # the three words are the same
    assert done.pushed["objects"] == files + 7 == len(admin.list_objects_v2(Bucket=bucket)["Contents"])  # and nothing of others

    assert promote(folder, "fern", None, "approved") == "fern@v0.0.1"
    assert "team/a=fern@v0.0.1" in git.git(whole, "tag", "--list").split() and versions(whole) == []
    assert [(row["concept"], row["stage"]) for row in versions(folder, "fern")] == [("fern", "approved")]
    with pytest.raises(PipelineError, match="fern: its stages did not end well: none of its 3 files can be used"):
        reproduce(Workspace.at(folder, "data/concepts"), params, "fern", print, ["validate", "train"])

    before = digests(folder, "data/concepts", "artifacts")
    subprocess.run(["git", "clone", "--quiet", str(whole), str(tmp_path / "second")], check=True)
    second = tmp_path / "second" / "team" / "a"
    assert bring(second, params).lost == {} and digests(second, "data/concepts", "artifacts") == before
    assert not (tmp_path / "second" / "team" / "b" / "large.bin").exists()


def test_what_a_record_of_a_folder_depends_on_may_lie_above_it(folder, params) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update=COMMITTING)})
    write(git.top(folder) / "shared.py", b"print(1)")
    text = (folder / "dvc.yaml").read_text().replace("- data/concepts", "- data/concepts\n    - ../../shared.py", 1)
    (folder / "dvc.yaml").write_text(text)
    with pytest.raises(PipelineError, match=r"not committed to Git: ../../shared.py differ from Git"):
        record(Workspace.at(folder, "data/concepts"), committing, print, force=True)


def test_two_workspaces_of_one_repository_have_registries_of_their_own(folder, params) -> None:
    step(folder, params.model_copy(update={"versions": params.versions.model_copy(update=COMMITTING)}))
    other = folder.with_name("c")
    shutil.copytree(folder, other)
    assert register(Workspace.at(folder, "data/concepts"), "fern") == "fern@v0.0.1"
    assert versions(other) == []
