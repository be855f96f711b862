"""A stage reads what it declares and nothing else, and `dvc.yaml` says the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.stages.quick import ROOT, quick, run
from tests.stages.test_compare import small
from ti_pipeline.files import digest_file
from ti_pipeline.models import Models
from ti_pipeline.stages import declared
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run, Stage
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import CHOICES, CONCEPTS, Workspace

pytestmark = pytest.mark.slow

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OF_MODEL = {
    "source": {"generator"}, "generator": {"generator"}, "reader_if_there": {"reader"}, "ranker": {"ranker"}, "embed": {"ranker"},
    "ranker_if_there": {"ranker"}, "ranker_digest": {"ranker"}, "sight_digest": {"ranker"}, "judge_digest": {"judge"},
    "sight": {"ranker"}, "check_dino": {"ranker"}, "check_judge": {"judge"},
    "judge_ranks": {"judge", "ranker"}, "judge": {"judge"}, "choose_initializer": {"generator", "ranker"},
}  # fmt: skip
OPENED = """
import json, os, sys
from pathlib import Path
from tests.stages.quick import quick
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Workspace
opened = set()
def hear(event, words):
    if event == "open" and isinstance(words[0], (str, bytes)):
        opened.add(os.path.abspath(os.fsdecode(words[0])))
sys.addaudithook(hear)
run = Run.over(Workspace.at(Path(sys.argv[1]), "concepts"), quick(), force=True)
assert all(outcome.ok for outcome in run_stage(STAGES[sys.argv[2]], run))
print(json.dumps(sorted(opened)))
"""
AGAIN = """
import json, sys
from pathlib import Path
from tests.stages.quick import quick
from ti_pipeline.stages.status import survey
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Run
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Workspace
workspace = Workspace.at(Path(sys.argv[1]), "concepts")
found = {state for row in survey(workspace, quick()) for state in row["stages"].values()}
for stage in STAGES.values():
    found |= {outcome.state for outcome in run_stage(stage, Run.over(workspace, quick()))}
print(json.dumps([sorted(found), sorted({"diffusers.models", "open_clip", "timm"} & set(sys.modules))]))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace after all stages, in which people have chosen: of one concept the initializer is to be found."""
    workspace = Workspace.at(tmp_path_factory.mktemp("made"), "concepts")
    for name in ("fox", "frog"):
        shutil.copytree(ROOT / "examples" / "concepts" / name, workspace.concepts / name)
    (workspace.concepts / "fox" / "concept.yaml").unlink()
    run(workspace, quick(), *STAGES)
    shutil.copy(ROOT / "choices" / "README.md", workspace.choices)
    return workspace


@pytest.mark.parametrize("name", STAGES)
def test_dvc_is_told_what_the_stage_declares_and_imports(name: str) -> None:
    """`python -m ti_pipeline.stages.declared dvc.yaml` writes it."""
    assert PIPELINE[name] == declared.entry(STAGES[name])


def test_dvc_has_the_stages_in_their_order() -> None:
    assert list(PIPELINE) == list(STAGES)


def test_code_is_found_inside_of_functions_and_behind_other_modules() -> None:
    found = {path.relative_to(ROOT / "ti_pipeline").as_posix() for path in declared.code(STAGES["rank"])}
    assert {"stages/rank.py", "ranking/rank.py", "ranking/select.py", "candidates/looks.py", "sight/ranker.py", "stages/turns.py"} <= found
    assert not found & {"stages/train.py", "inversion/train.py", "sight/judge.py", "gallery/build.py", "stages/table.py"}
    assert ROOT / "ti_pipeline" / "gallery" / "templates" / "index.html" in declared.code(STAGES["gallery"])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_needs_only_what_it_reads_of_stages_before_it(name: str) -> None:
    stage, before = STAGES[name], list(STAGES)[: list(STAGES).index(name)]
    made = [STAGES[other].output for other in before]
    assert set(stage.needs) <= set(stage.reads) <= {*made, CONCEPTS, CHOICES}


def inputs(stage: Stage, workspace: Workspace) -> list[Path]:
    known = {CONCEPTS: workspace.concepts, CHOICES: workspace.choices}
    return [known.get(name, workspace.artifacts / name) for name in stage.reads]


def contents(folder: Path) -> dict[str, str]:
    """Digests by name, but for who a gallery is, which is drawn once, and its overview, which says on what day words came here."""
    without = (folder / "_site" / "identity.js", folder.parent / "galleries" / "index.html")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path not in without]
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


@pytest.mark.parametrize("name", STAGES)
def test_with_nothing_but_its_inputs_a_stage_makes_the_same(name: str, made: Workspace, tmp_path: Path) -> None:
    stage, alone = STAGES[name], Workspace.at(tmp_path, "concepts")
    for source in inputs(stage, made):
        shutil.copytree(source, tmp_path / source.relative_to(made.root))
    for path in tmp_path.rglob("*"):
        os.utime(path, (86_400, 86_400))  # on another day
    assert all(outcome.state == "done" for outcome in run_stage(stage, Run.over(alone, quick())))
    assert contents(stage.folder(alone)) == contents(stage.folder(made))


def test_a_process_with_nothing_to_do_imports_no_model(made: Workspace) -> None:
    ran = subprocess.run([sys.executable, "-c", AGAIN, str(made.root)], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and json.loads(ran.stdout.splitlines()[-1]) == [["up-to-date"], []], ran.stdout + ran.stderr


@pytest.mark.parametrize("name", STAGES)
def test_every_file_that_is_opened_is_declared(name: str, made: Workspace, tmp_path: Path) -> None:
    stage, place = STAGES[name], Workspace.at(tmp_path / "place", "concepts")
    shutil.copytree(made.root, place.root)
    ran = subprocess.run([sys.executable, "-c", OPENED, str(place.root), name], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    opened = [Path(path) for path in json.loads(ran.stdout.splitlines()[-1])]
    models = [ROOT / declared.MODELS[model].folder for model in stage.models]
    own = [stage.folder(place), place.artifacts / "locks", *(place.artifacts / name for name in stage.scratch)]
    if name == "rank":
        own += [place.artifacts / scratch for scratch in STAGES["generate"].scratch]  # which changes no result
    if name == "gallery":
        own.append(place.choices)  # what it writes of itself: who it is, and the key to its questionnaire
    allowed = [*inputs(stage, place), *own, *models]
    watched = (place.root, ROOT / "ti_pipeline" / "miniature")
    seen = [path for path in opened if any(path.is_relative_to(folder) for folder in watched) and path.suffix not in (".py", ".pyc")]
    assert seen
    assert [path for path in seen if not any(path.is_relative_to(folder) for folder in allowed)] == []


class Watched:
    """A section of the params that notes which keys are read of it; all of it, where it is read as one."""

    def __init__(self, section: Any, name: str, read: set[str]):
        self._section, self._name, self._read = section, name, read

    def __getattr__(self, key: str) -> Any:
        fields = type(self._section).model_fields
        if key in fields:
            self._read.add(f"{self._name}.{key}")
            return getattr(self._section, key)
        if key == "model_dump":
            return self._dump
        if key == "for_concept":
            return lambda manifest: type(self._section).for_concept(self, manifest)
        if key == "model_copy":
            return lambda update: Watched(self._section.model_copy(update=update), self._name, self._read)
        if isinstance(made_of_fields := getattr(type(self._section), key, None), property):
            return made_of_fields.fget(self)
        self._read.add(self._name)
        return getattr(self._section, key)

    def _dump(self, *, include: Any = None, **rest: Any) -> dict[str, Any]:
        self._read |= {f"{self._name}.{key}" for key in include} if include else {self._name}
        return self._section.model_dump(include=include, **rest)


class WatchedParams:
    def __init__(self, params: Any, read: set[str]):
        self._params, self._read = params, read

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._params, key)
        if key == "section":
            return lambda *names: self._read.update(names) or value(*names)
        name = key.rstrip("_")
        if not hasattr(type(value), "model_fields"):
            self._read.add(name)
            return value
        return Watched(value, name, self._read)


class WatchedModels:
    def __init__(self, models: Models, read: set[str]):
        self._models, self._read = models, read

    def __getattr__(self, key: str) -> Any:
        self._read |= OF_MODEL[key]
        return getattr(self._models, key)


@pytest.mark.parametrize("name", STAGES)
def test_params_and_models_that_are_read_are_declared(name: str, made: Workspace, tmp_path: Path) -> None:
    stage, place = STAGES[name], Workspace.at(tmp_path / "place", "concepts")
    shutil.copytree(made.root, place.root)
    read, models = set(), set()
    run = Run.over(place, small() if stage.asked else quick(), force=True)
    watched = replace(run, params=WatchedParams(run.params, read), models=WatchedModels(run.models, models))
    assert all(outcome.ok for outcome in run_stage(stage, watched))
    known = declared.sections(stage)
    assert [key for key in sorted(read) if not any(key == one or key.startswith(f"{one}.") for one in known)] == []
    assert models == set(stage.models)
