"""The registry in Git's tags, and a version that is made again, on the embedded model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.versioning.small import ROOT
from ti_pipeline.errors import ConceptError, ParamsError
from ti_pipeline.files import digest_file
from ti_pipeline.params import load
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.versioning import git
from ti_pipeline.versioning.record import record
from ti_pipeline.versioning.registry import find, promote, register, register_changed, versions
from ti_pipeline.versioning.reproduce import reproduce
from ti_pipeline.workspace import Workspace

BRIEFS = {"object": ["a photo of a {token}"], "style": ["a picture of a cat in the style of {token}"]}
SMALL = {
    "concepts": {"folder": "data/concepts"}, "train": {"steps": 2}, "generate": {"candidates": 2, "steps": 2, "briefs": BRIEFS},
    "evaluate": {"samples": 2, "samples_per_prompt": 2, "steps": 2, "bootstrap": 10, "prompts": BRIEFS},
    "versions": {"commit": True, "tag": True, "register": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One concept taken through all stages, in a repository where nothing is recorded yet."""
    root = tmp_path_factory.mktemp("registry") / "workspace"
    shutil.copytree(ROOT / "examples" / "concepts" / "fox", root / "data" / "concepts" / "fox")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, values in SMALL.items():
        tree[section] |= values
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    for stage in pipeline["stages"].values():
        stage["deps"] = [dep for dep in stage["deps"] if not dep.startswith("ti_pipeline")]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": pipeline["stages"]}, sort_keys=False))
    (root / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/.gitignore", ".gitignore", ".dvcignore"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main"], cwd=root, check=True)
    git.commit(root, "Start", ["params.yaml", "dvc.yaml", ".dvc", ".gitignore", ".dvcignore"])
    place, params = Workspace.at(root, "data/concepts"), load(root / "params.yaml")
    for stage in STAGES.values():
        assert [outcome.state for outcome in run_stage(stage, Run.over(place, params))] == ["done"]
    return root


@pytest.fixture()
def workspace(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    return Workspace.at(Path(shutil.copytree(made, tmp_path / "workspace")), "data/concepts")


def test_a_run_registers_what_it_has_learnt(workspace) -> None:
    params = load(workspace.root / "params.yaml")
    done = record(workspace, params, print)
    assert done.left_out == {} and done.registered == ["fox@v0.0.1"] and done.tag == "run/1"
    (row,) = versions(workspace.root)
    assert (row["stage"], row["commit"], row["digest"]) == ("candidate", done.commit, digest_file(workspace.embedding("fox")))
    assert (
        -1 <= row["scores"]["reconstruction"] <= 1 and row["provenance"]["steps"] == "2" and row["provenance"]["generator"] == "miniature"
    )
    assert record(workspace, params, print).registered == [] and register(workspace, "fox") == "fox@v0.0.1"

    promote(workspace.root, "fox", "v0.0.1", "approved")
    assert find(workspace.root, "fox", None)["stage"] == "approved"
    without_this_project = [sys.executable, "-m", "gto.cli", "show", "fox"]
    outside = subprocess.run(without_this_project, cwd=workspace.root, capture_output=True, text=True)
    assert "v0.0.1" in outside.stdout and "approved" in outside.stdout, outside.stderr
    with pytest.raises(ParamsError, match="There are candidate, approved, retired"):
        promote(workspace.root, "fox", "v0.0.1", "perfect")
    with pytest.raises(ParamsError, match="There are: v0.0.1"):
        find(workspace.root, "fox", "v9.9.9")


def test_a_word_that_git_does_not_have_is_not_registered(workspace) -> None:
    with pytest.raises(ConceptError, match="Git does not have DVC's current record"):
        record_only = load(workspace.root / "params.yaml", ["versions.commit=false"])
        record(workspace, record_only, print)
        register(workspace, "fox")
    record(workspace, load(workspace.root / "params.yaml", ["versions.register=false"]), print)
    workspace.embedding("fox").write_bytes(b"another word")
    with pytest.raises(ConceptError, match="differs from DVC's record"):
        register(workspace, "fox")
    with pytest.raises(ConceptError, match="there is no learnt word"):
        register(workspace, "wolf")
    assert register_changed is not None and versions(workspace.root) == []


def test_a_version_is_made_again(workspace) -> None:
    params = load(workspace.root / "params.yaml")
    record(workspace, params, print)
    shutil.rmtree(workspace.artifacts)
    shutil.rmtree(workspace.concepts)
    again = reproduce(workspace, params, "fox@v0.0.1", print)
    assert again.equal and again.compared > 10 and "equal" in str(again)
    assert not workspace.artifacts.exists()  # it works in a folder of its own


def test_what_differs_is_named(workspace) -> None:
    params = load(workspace.root / "params.yaml")
    workspace.report("fox").write_bytes(b"not what the stage writes")
    record(workspace, params, print, force=True)
    again = reproduce(workspace, params, "fox", print, ["validate"])
    assert list(again.differ) == ["artifacts/manifests/fox.json"] and "1 of 2 files differ" in str(again)


def test_the_later_of_two_tags_of_one_second_counts(workspace, monkeypatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1767225600 +0000")
    record(workspace, load(workspace.root / "params.yaml"), print)
    for stage in ("approved", "retired", "approved", "candidate"):
        promote(workspace.root, "fox", "v0.0.1", stage)
        assert find(workspace.root, "fox", None)["stage"] == stage
