"""The commands around the registry as people call them: one line that says what to do, whatever is missing, and no traceback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.versioning.small import SETS, configured, small_repository
from ti_pipeline import cli
from ti_pipeline.versioning import git
from ti_pipeline.versioning.record import record
from ti_pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a word for each set, recorded in DVC and Git; fern's has a version."""
    root = tmp_path_factory.mktemp("commands") / "workspace"
    small_repository(root)
    for slug in SETS:
        word = root / "artifacts" / "embeddings" / slug / "learned_embeds.safetensors"
        save_file({"<x>": torch.zeros(1, 4)}, word, metadata={"generator": "miniature", "steps": "2"})
    record(Workspace.at(root, "data/concepts"), configured("", None, versions={"commit": True, "tag": True}), print, force=True)
    return root


@pytest.fixture()
def root(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return Path(shutil.copytree(recorded, tmp_path / "workspace"))


@pytest.fixture()
def call(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """The command in this process; returns its status and what it printed. `at` is another workspace."""

    def do(*words: str, at: Path = root) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ti-pipeline", *words, "--workspace", str(at)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return ended.value.code or 0, out, err

    return do


def test_a_life_of_a_version(call) -> None:
    status, out, err = call("versions")
    assert (status, out) == (0, "") and "`ti-pipeline register` makes one" in err
    assert call("register", "fern") == (0, "fern@v0.0.1\n", "")
    assert call("promote", "fern", "approved") == (0, "fern@v0.0.1 is approved\n", "")
    assert call("promote", "fern@v0.0.1", "candidate") == (0, "fern@v0.0.1 is candidate\n", "")
    status, out, _ = call("versions")
    assert status == 0 and "fern" in out and "candidate" in out and "reconstruction" in out and "v0.0.1" in out
    (row,) = json.loads(call("versions", "fern", "--json")[1])
    assert row["provenance"] == {"generator": "miniature", "steps": "2"} and row["commit"][:12] in out


def test_a_withdrawn_concept_is_said_and_gets_no_new_version(call, root) -> None:
    call("register", "fern")
    shutil.rmtree(root / "data" / "concepts" / "fern")
    (row,) = json.loads(call("versions", "--json")[1])
    assert row["withdrawn"] is True and "candidate, withdrawn" in call("versions")[1]
    with (root / "artifacts" / "embeddings" / "fern" / "learned_embeds.safetensors").open("ab") as word:
        word.write(b"x")
    status, _, err = call("register", "fern")
    assert status == 1 and "it is withdrawn" in err
    shutil.rmtree(root / "data")  # a clone without its pictures: nothing is withdrawn
    assert json.loads(call("versions", "--json")[1])[0]["withdrawn"] is False


def test_one_bad_name_does_not_stop_the_others(call) -> None:
    status, out, err = call("register", "fern", "wolf", "../bear", "fern@v0.0.1", "bear")
    assert (status, out) == (1, "fern@v0.0.1\nbear@v0.0.1\n")
    assert "wolf: " in err and err.count("there is no learnt word. Train it first.") == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("promote", "fern@v9", "approved"), "There are: v0.0.1"),
        (("promote", "wolf", "approved"), "`ti-pipeline register` makes one"),
        (("promote", "fern", "perfect"), "There are candidate, approved, retired"),
        (("reproduce", "fern@v9"), "There are: v0.0.1"),
        (("reproduce", "wolf"), "its pictures are neither in that commit nor in its record"),
        (("reproduce", "fern", "--stage", "paint"), "There are validate, train, generate, rank, evaluate, gallery"),
        (("reproduce", "../fern"), "is no concept's name"),
        (("reproduce", "@v0.0.1"), "is no concept's name"),
        (("reproduce", "bear"), "its stages did not end well: none of its 3 files can be used"),
    ],
)
def test_a_wrong_call_says_what_there_is(call, words, expected) -> None:
    call("register", "fern")
    status, out, err = call(*words)
    assert (status, out) == (2, "") and expected in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command", "expected"),
    [("pull", "storage.bucket: none is set"), ("inbox", "inbox.bucket: none is set"), ("publish", "publish.bucket: none is set")],
)
def test_without_a_bucket(call, command, expected) -> None:
    status, out, err = call(command)
    assert (status, out) == (2, "") and expected in err


def test_a_version_that_is_not_there_is_said(call) -> None:
    assert call("versions", "wolf") == (0, "", "no version of wolf; `ti-pipeline register` makes one\n")
    assert call("versions", "wolf", "--json") == (0, "[]\n", "")


@pytest.mark.parametrize("words", [("versions",), ("register", "fern"), ("promote", "fern", "approved"), ("reproduce", "fern")])
def test_without_git(call, root, words) -> None:
    shutil.rmtree(root / ".git")
    status, _, err = call(*words)
    assert status == 2 and "is not a Git repository; the registry is in Git's tags" in err


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        (("versions",), 0, "no version"),
        (("register", "fern"), 1, "Git does not have DVC's current record"),
        (("promote", "fern", "approved"), 2, "there is no such version"),
        (("reproduce", "fern"), 2, "there is no commit yet"),
    ],
)
def test_without_a_commit(call, root, words, status, expected) -> None:
    shutil.rmtree(root / ".git")
    git.git(root, "init", "--quiet")
    found, _, err = call(*words)
    assert found == status and expected in err


def test_a_detached_head_is_as_good_as_a_branch(call, root) -> None:
    git.git(root, "checkout", "--quiet", "--detach")
    assert call("register", "lamp")[:2] == (0, "lamp@v0.0.1\n")
    assert call("promote", "lamp", "retired")[:2] == (0, "lamp@v0.0.1 is retired\n")


@pytest.mark.parametrize("text", ["# mine\n", "stages: ["])
def test_a_record_that_git_does_not_have(call, root, text) -> None:
    with (root / "dvc.lock").open("a") as file:
        file.write(text)
    status, _, err = call("register", "lamp")
    assert status == 1 and "Commit dvc.lock, or set versions.commit" in err


def test_a_shallow_clone(call, root, tmp_path) -> None:
    call("register", "fern")
    git.git(root, "commit", "--quiet", "--allow-empty", "--message", "Later", "--author=t <t@t>")
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", root.as_uri(), str(shallow)], check=True)
    status, _, err = call("versions", at=shallow)
    assert status == 0 and "no version" in err  # the tag is of an earlier commit
    git.git(shallow, "fetch", "--quiet", "--depth", "1", "origin", "refs/tags/*:refs/tags/*")
    assert call("promote", "fern", "approved", at=shallow)[:2] == (0, "fern@v0.0.1 is approved\n")
    status, _, err = call("reproduce", "fern", at=shallow)
    assert status == 2 and "the listing of this folder is not in DVC's cache. Pull first" in err
