"""`dvc.yaml` is the flow's other face: what the flow has made, DVC finds done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ti_pipeline.params import load
from ti_pipeline.stages.table import STAGES

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())


def dvc(folder: Path, *arguments: str, status: int = 0) -> str:
    """The console script of this interpreter's environment is what `dvc repro` finds as `ti-pipeline`."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    ran = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_stages_in_order() -> None:
    assert list(PIPELINE["stages"]) == list(STAGES)
    for name, stage in PIPELINE["stages"].items():
        assert stage["cmd"].split()[:2] == ["ti-pipeline", name]
        assert [list(out.values()) for out in stage["outs"]] == [[{"persist": True}]]


def test_dependencies_are_there_and_params_are_sections() -> None:
    params = load(ROOT / "params.yaml").model_dump(by_alias=True)
    known = params.keys() | {f"{section}.{key}" for section, keys in params.items() if isinstance(keys, dict) for key in keys}
    made = {path for stage in PIPELINE["stages"].values() for out in stage["outs"] for path in out}
    for stage in PIPELINE["stages"].values():
        assert set(stage["params"]) <= known
        for dependency in stage["deps"]:
            assert dependency in made or dependency == "${concepts.folder}" or (ROOT / dependency).exists(), dependency


@pytest.fixture(scope="module")
def committed(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dvc") / "repository"
    shutil.copytree(finished[0], folder)
    dvc(folder, "commit", "--force", "--quiet")
    return folder


def test_after_a_flow_there_is_nothing_to_do(committed) -> None:
    assert "up to date" in dvc(committed, "status")
    said = dvc(committed, "repro")
    assert "Running stage" not in said, said
    assert "reconstruction" in dvc(committed, "metrics", "show")


def test_a_changed_section_runs_its_stages_and_no_other(committed) -> None:
    params = committed / "params.yaml"
    params.write_text(params.read_text().replace("title: Learnt concepts", "title: Something else"))
    said = dvc(committed, "repro")
    assert said.count("Running stage") == 1 and "Running stage 'gallery'" in said
    assert "Something else" in (committed / "artifacts" / "galleries" / "index.html").read_text()
    assert "up to date" in dvc(committed, "status")


def test_a_size_that_is_not_drawn_is_refused_before_training_and_another_one_learns_nothing_anew(committed) -> None:
    params, words = committed / "params.yaml", committed / "artifacts" / "embeddings"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in words.rglob("*") if path.is_file()}
    plain = params.read_text()
    params.write_text(plain.replace("  candidates: 2\n", "  candidates: 2\n  width: 102\n").replace("  width: null\n", ""))
    said = dvc(committed, "repro", status=255)
    assert "generate.width and generate.height: miniature draws no 102 × 64 pixels: both must be multiples of 4" in said
    assert "failed to reproduce 'train'" in said and "Running stage 'generate'" not in said
    params.write_text(params.read_text().replace("width: 102", "width: 72"))
    said = dvc(committed, "repro", "train")
    assert "Running stage 'train'" in said and "up-to-date" in said
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in words.rglob("*") if path.is_file()} == before
    params.write_text(plain)
