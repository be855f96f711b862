"""The wheel by itself: outside of a clone, in an environment that has the package from nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LARGEST = 100 * 10**6  # bytes
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
SMALL = {
    "train": {"steps": 2, "checkpoint_every": 2},
    "generate": {"candidates": 2, "steps": 2},
    "rank": {"best": 1},
    "evaluate": {"samples": 2, "samples_per_prompt": 2, "steps": 2, "bootstrap": 10},
}
pytestmark = pytest.mark.slow


def tracked() -> list[str]:
    """Files of the clone, those among them that Git does not know yet."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `python -m build` builds it, of a copy: a build leaves things behind."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(ROOT / name, source / name) if os.stat(ROOT).st_dev == os.stat(source).st_dev else shutil.copy(ROOT / name, source / name)
    ran = subprocess.run([sys.executable, "-c", BUILD, str(built)], cwd=source, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    (path,) = built.iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a process of an environment that has the wheel installed; the packages that it needs are those of this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    python, torch = home / "bin" / "python", find_spec("torch")
    assert torch and torch.origin
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*command, str(wheel)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(f"{Path(torch.origin).parents[1]}\n")  # what its own .pth files add is not added: no clone
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV") and not key.startswith("PREFECT_")}
    return kept | {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}


def call(environment: dict[str, str], folder: Path, *words: str) -> str:
    ran = subprocess.run([*words], cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_it_has_all_of_the_package_and_is_small_enough(wheel: Path) -> None:
    assert wheel.stat().st_size < LARGEST
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    ours = {name for name in tracked() if name.split("/")[0] in ("ti_pipeline", "flows", "tasks")}
    first = {name.removeprefix("ti_pipeline/_workspace/") for name in names if name.startswith("ti_pipeline/_workspace/")}
    assert names - {f"ti_pipeline/_workspace/{name}" for name in first} == ours
    concepts = {name for name in tracked() if name.startswith("examples/concepts/")}
    top = {"params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", "prefect.yaml", "automations.yaml"}
    assert first == {*concepts, *top, "choices/README.md", "examples/LICENSE.md"}


def test_a_workspace_begins_and_runs_and_draws_outside_of_a_clone(environment: dict[str, str], tmp_path: Path) -> None:
    where = call(environment, tmp_path, "python", "-c", "import ti_pipeline, flows, tasks; print(ti_pipeline.__file__, flows.__file__)")
    assert str(ROOT) not in where
    assert "ti-pipeline run" in call(environment, tmp_path, "ti-pipeline", "init", "toys")
    toys = tmp_path / "toys"
    params = yaml.safe_load((toys / "params.yaml").read_text())
    for section, values in SMALL.items():
        params[section] |= values
    (toys / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    call(environment, toys, "ti-pipeline", "run")
    assert (toys / "artifacts" / "galleries" / "fox" / "index.html").is_file()
    assert "up to date" in call(environment, toys, "python", "-m", "dvc", "status")
    (toys / "params.yaml").write_text((toys / "params.yaml").read_text().replace("title: Learnt concepts", "title: Our toys"))
    said = call(environment, toys, "python", "-m", "dvc", "repro")
    assert said.count("Running stage") == 1 and "Running stage 'gallery'" in said
    assert "Contact sheet: " in call(environment, toys, "ti-pipeline", "draw", "a <fox> on a blue background", "-n", "2")
    assert len([*(toys / "artifacts" / "drawings").glob("a-fox-on-a-blue-background-*.png")]) == 3


def test_the_demo_needs_no_clone(environment: dict[str, str], tmp_path: Path) -> None:
    sets = [f"--set={section}.{key}={value}" for section, values in SMALL.items() for key, value in values.items()]
    said = call(environment, tmp_path, "ti-pipeline", "demo", *sets)
    assert "strawberry" in said and (tmp_path / "build" / "demo" / "artifacts" / "galleries" / "index.html").is_file()
