"""`ti-pipeline init`: a folder becomes a workspace, whatever is in it already."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from ti_pipeline.errors import PipelineError
from ti_pipeline.params import load
from ti_pipeline.stages.declared import ROOT, entry, with_stages, write
from ti_pipeline.stages.table import STAGES
from ti_pipeline.versioning import git
from ti_pipeline.versioning.begin import begin
from ti_pipeline.versioning.lock import dvc_folder

FILES = [".dvcignore", ".gitignore", "automations.yaml", "choices/README.md", "dvc.yaml", "params.yaml", "prefect.yaml"]
EXAMPLE = [f"data/concepts/fox/{name}" for name in ("blue.png", "concept.yaml", "green.png", "white.png", "yellow.png")]


def files(root: Path) -> dict[str, bytes]:
    own = [path for path in root.rglob("*") if path.is_file() and not {".git", ".dvc"} & {*path.relative_to(root).parts}]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in own}


def test_a_new_folder_is_a_workspace(tmp_path: Path) -> None:
    root = tmp_path / "shelf" / "toys"
    begun = begin(root)
    assert sorted(files(root)) == sorted([*FILES, *EXAMPLE])
    assert sorted(begun.wrote) == sorted([*FILES, "data/concepts", ".git", ".dvc"]) and begun.kept == []
    assert str(begun).endswith(f"Next: cd {root} && ti-pipeline run")
    ours, clones = load(root / "params.yaml"), load(ROOT / "params.yaml")
    assert ours.concepts.folder == "data/concepts"
    assert ours.model_copy(update={"concepts": clones.concepts}) == clones
    for name in ("prefect.yaml", "automations.yaml", ".dvcignore", ".gitignore"):
        assert (root / name).read_bytes() == (ROOT / name).read_bytes()


def test_its_pipeline_names_nothing_of_a_clone_and_dvc_reads_it(tmp_path: Path) -> None:
    root = tmp_path / "toys"
    begin(root)
    pipeline = yaml.safe_load((root / "dvc.yaml").read_text())
    assert list(pipeline["stages"]) == list(STAGES) and {"metrics", "plots"} <= pipeline.keys()
    for name, stage in pipeline["stages"].items():
        clones = entry(STAGES[name])
        assert stage["deps"] == [path for path in clones["deps"] if not path.startswith("ti_pipeline/")]
        assert (stage["params"], stage["outs"]) == (clones["params"], clones["outs"])
        assert stage["cmd"] == f"{clones['cmd']}  # 0.1.0"
    with Repo(str(root)) as repo:
        assert {stage.name for stage in repo.index.stages} == {*STAGES}
        assert repo.config["core"]["analytics"] is False
    assert git.git(root, "status", "--porcelain", "--ignored", "data").split() == ["!!", "data/"]


def test_the_stages_are_written_anew_as_they_are_where_they_lie(tmp_path: Path) -> None:
    begin(tmp_path)
    path = tmp_path / "dvc.yaml"
    before = path.read_text()
    path.write_text(before.replace("  # 0.1.0", "  # 0.0.9").replace("  validate:", "  look:"))
    write(path)
    assert path.read_text() == before
    clones = (ROOT / "dvc.yaml").read_text()
    assert with_stages(clones, clone=True) == clones


def test_a_second_call_changes_nothing(tmp_path: Path) -> None:
    begin(tmp_path)
    (tmp_path / "data" / "concepts" / "fox" / "blue.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = begin(tmp_path)
    assert again.wrote == [] and f"{tmp_path} has all that it needs." in str(again)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_is_there_stays_and_the_rest_is_added(tmp_path: Path) -> None:
    (tmp_path / "data" / "concepts" / "mug").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text("mine")
    begun = begin(tmp_path)
    assert begun.kept == ["params.yaml", "data/concepts"]
    assert "Left as they are: params.yaml, data/concepts." in str(begun)
    assert sorted(files(tmp_path)) == sorted(FILES) and (tmp_path / "params.yaml").read_text() == "mine"


def test_in_a_repository_of_git_or_of_dvc_no_other_is_made(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    begin(tmp_path / "toys")
    assert not (tmp_path / "toys" / ".git").exists() and dvc_folder(tmp_path / "toys") == tmp_path / "toys" / ".dvc"
    with Repo(str(tmp_path / "toys")) as repo:
        assert {stage.name for stage in repo.index.stages} == {*STAGES}
    begun = begin(tmp_path / "toys" / "wooden")
    assert not (tmp_path / "toys" / "wooden" / ".dvc").exists() and begun.kept == [".dvc"]


def test_without_git_dvc_stands_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    begun = begin(tmp_path / "toys")
    assert ".dvc" in begun.wrote and ".git" not in begun.wrote
    with Repo(str(tmp_path / "toys")) as repo:
        assert repo.config["core"]["no_scm"] is True


def test_an_example_that_was_half_written_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "data" / ".concepts" / "fox").mkdir(parents=True)
    begin(tmp_path)
    assert sorted(files(tmp_path)) == sorted([*FILES, *EXAMPLE])


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "toys").write_text("")
    with pytest.raises(PipelineError, match="toys is a file"):
        begin(tmp_path / "toys")
