"""The versioning step: what it records, pushes and commits, and that another machine has it back."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.versioning.small import OUTPUTS, SETS, bring, configured, digests, write
from ti_pipeline.errors import PipelineError
from ti_pipeline.params import Params
from ti_pipeline.versioning import git
from ti_pipeline.versioning.lock import alone
from ti_pipeline.versioning.record import record
from ti_pipeline.workspace import Workspace

EVERYTHING = ["data/concepts", "validate", "train", "generate", "rank", "evaluate", "gallery"]


def step(root: Path, params: Params, say=print, **options):
    """The sets of these tests are no pictures, so what the stages say of them is left out."""
    return record(Workspace.at(root, params.concepts.folder), params, say, force=True, **options)


def dvc(root: Path, *words: str) -> str:
    ran = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True)
    return ran.stdout + ran.stderr


def test_pushed_lost_and_pulled_in_a_second_clone(repository, params, clone) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True, "tag": True})})
    done = step(repository, committing)
    assert done.recorded == EVERYTHING and done.tag == "run/1" and done.commit
    files = 9 + 6 * 3
    assert done.pushed == {"objects": files + 7, "bytes": done.pushed["bytes"]} and done.pushed["bytes"] > files * 2000
    assert "up to date" in dvc(repository, "status") and "in sync" in dvc(repository, "status", "--cloud")
    assert "Running stage" not in dvc(repository, "repro")
    assert git.changed(repository, ".") == []

    before = digests(repository, "data", "artifacts")
    for folder in (".dvc/cache", "artifacts", "data/concepts"):
        shutil.rmtree(repository / folder)
    second = clone("second")
    assert bring(second, params).lost == {}
    assert digests(second, "data", "artifacts") == before
    assert "up to date" in dvc(second, "status") and "in sync" in dvc(second, "status", "--cloud")
    assert bring(repository, params).objects == done.pushed["objects"] and digests(repository, "data", "artifacts") == before


def test_a_past_version_comes_back_with_checkout(repository, params) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True, "tag": True})})
    step(repository, committing)
    before = digests(repository, "artifacts", "data")
    write(repository / "artifacts" / "embeddings" / "fern" / "file.bin", b"learnt anew")
    done = step(repository, committing)
    assert done.tag == "run/2" and digests(repository, "artifacts") != before
    git.git(repository, "checkout", "--quiet", "run/1")
    dvc(repository, "checkout")
    assert digests(repository, "artifacts", "data") == before


def test_it_commits_exactly_what_changed(repository, params) -> None:
    step(repository, params)
    again = step(repository, params)
    assert again.recorded == [] and again.pushed == {"objects": 0, "bytes": 0}
    write(repository / "artifacts" / "evaluation" / "fern" / "file.bin", b"other numbers")
    third = step(repository, params)
    assert third.recorded == ["evaluate", "gallery"]  # the gallery reads the evaluation
    assert third.pushed["objects"] == 2  # the file and the folder's listing


def test_without_a_remote_everything_works_and_says_so(repository) -> None:
    done = step(repository, configured("", None))
    assert done.recorded == EVERYTHING and done.not_pushed == "storage.bucket is not set in params.yaml"
    assert "not pushed: storage.bucket" in str(done)
    assert "up to date" in dvc(repository, "status") and not (repository / ".dvc" / "config.local").exists()


def test_a_workspace_without_dvc_says_so(tmp_path, params) -> None:
    done = step(tmp_path, params)
    assert "has no .dvc" in done.reason and str(done).startswith("not recorded and not pushed: ")


def test_a_run_with_other_settings_is_not_recorded(repository, params) -> None:
    other = params.model_copy(update={"seed": 7})
    done = step(repository, other)
    assert "settings differ" in done.reason and "seed" in done.reason and not (repository / "dvc.lock").exists()


def test_stages_that_are_not_up_to_date_are_left_out(repository, params) -> None:
    done = record(Workspace.at(repository, params.concepts.folder), params, print)
    assert done.recorded == ["data/concepts"]
    assert list(done.left_out) == [*EVERYTHING[1:], "compare"] and "bear, fern, lamp" in done.left_out["validate"]
    assert (repository / "data" / "concepts.dvc").exists() and not (repository / "dvc.lock").exists()


def test_git_takes_the_record_and_nothing_else_that_is_staged(repository, params) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True})})
    (repository / "notes.txt").write_text("mine")
    git.git(repository, "add", "notes.txt")
    done = step(repository, committing)
    assert sorted(git.git(repository, "show", "--name-only", "--format=", done.commit).split()) == ["data/concepts.dvc", "dvc.lock"]
    assert git.changed(repository, ".") == ["notes.txt"]


def test_git_refuses_a_record_that_depends_on_what_it_does_not_have(repository, params) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True})})
    (repository / "stage.py").write_text("print(1)")
    text = (repository / "dvc.yaml").read_text().replace("- data/concepts", "- data/concepts\n    - stage.py", 1)
    (repository / "dvc.yaml").write_text(text)
    with pytest.raises(PipelineError, match="stage.py differ from Git"):
        step(repository, committing)
    git.git(repository, "add", "stage.py")
    git.commit(repository, "The stage", ["stage.py"])
    assert step(repository, committing).commit


def test_a_second_one_waits_with_a_message(repository, params, heard) -> None:
    waiting = threading.Event()

    def say(line: str) -> None:
        heard.say(line)
        waiting.set()

    with alone(repository, "versioning", print):
        second = threading.Thread(target=step, args=(repository, params, say))
        second.start()
        assert waiting.wait(60)
        assert not (repository / "dvc.lock").exists()
    second.join(300)
    assert heard.lines[0].startswith("versioning waits for versioning (process ")
    assert (repository / "dvc.lock").exists() and "up to date" in dvc(repository, "status")


def test_it_gives_up_in_words_after_a_while(repository, heard) -> None:
    with alone(repository, "versioning", print):
        failed: list[Exception] = []

        def other() -> None:
            try:
                with alone(repository, "versioning", heard.say, patience=0.1):
                    pass
            except PipelineError as error:
                failed.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(20)
    assert "has not ended" in str(failed[0])


@pytest.mark.parametrize("left", ["", "schema: '2.0'\nstages:\n  vali: [", "schema: '2.0'\n"])
def test_a_half_written_record_is_written_anew(repository, params, left) -> None:
    step(repository, params)
    whole = (repository / "dvc.lock").read_bytes()
    (repository / "dvc.lock").write_text(left)
    (repository / "data" / "concepts.dvc").write_text(left)
    (repository / ".dvc" / "tmp" / "rwlock").write_text(left)
    step(repository, params)
    assert (repository / "dvc.lock").read_bytes() == whole and "up to date" in dvc(repository, "status")


def test_part_of_a_collection_can_be_pulled(repository, params, clone) -> None:
    committing = params.model_copy(update={"versions": params.versions.model_copy(update={"commit": True})})
    step(repository, committing)
    second = clone("second")
    bring(second, params, ["data/concepts/fern"])
    assert digests(second, "data/concepts") == digests(repository, "data/concepts/fern")
    assert len(SETS) == 3 and len(OUTPUTS) == 6 and not (second / "artifacts").exists()
