"""The flow over a small collection with the embedded model and a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from prefect import flow

from flows.chain import ended
from flows.train_concepts import Stage, train_concepts
from tasks.stages import TASKS, run_task
from tasks.turn import turn
from tests.flows.processes import ROOT, artifact
from ti_pipeline.errors import ParamsError, PipelineError
from ti_pipeline.files import digest_file
from ti_pipeline.params import load
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import Outcome, Workspace


def written(folder: Path) -> dict[Path, tuple[str, int]]:
    """Digest and time of every file that a stage has made; those of the run itself lie above them."""
    return {path: (digest_file(path), path.stat().st_mtime_ns) for path in (folder / "artifacts").glob("*/**/*") if path.is_file()}


def test_the_stages_are_those_of_the_package() -> None:
    assert list(Stage.__args__) == list(STAGES) == list(TASKS)


def test_bad_concepts_are_reported_and_the_rest_finish(finished) -> None:
    folder, ended = finished
    assert (ended.name, ended.is_completed()) == ("Incomplete", True), ended.message
    summary = ended.result()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["concepts"] == {"fox": "done", "talker": "failed", "torn": "quarantined"}
    assert summary["counts"] == {"done": 1, "failed": 1, "quarantined": 1}
    assert summary["reasons"].keys() == {"talker", "torn"}
    assert summary["reasons"]["talker"].startswith("generate: ") and summary["reasons"]["torn"].startswith("validate: ")
    assert [note for note in summary["notes"] if note.startswith("talker: 1 of its ") and "files left out: blot.png: " in note]
    assert Path(summary["gallery"]) == folder / "artifacts" / "galleries" / "index.html" and Path(summary["gallery"]).is_file()
    assert not Workspace.at(folder, "x").ranking("talker").exists() and not Workspace.at(folder, "x").embedding("torn").exists()


def test_the_run_ends_with_a_table_and_links(server, finished) -> None:
    folder, ended = finished
    rows = {row["concept"]: row for row in json.loads(artifact(server, "concepts", ended))}
    assert rows.keys() == {"fox", "talker", "torn"}
    assert rows["fox"]["state"] in ("done", "up-to-date") and -1 <= rows["fox"]["reconstruction"] <= 1
    assert rows["talker"]["rank (s)"] is None and rows["talker"]["reason"]
    page = folder / "artifacts" / "galleries" / "fox" / "index.html"
    assert page.is_file() and page.resolve().as_uri() in artifact(server, "galleries", ended)


def test_a_second_run_does_nothing(finished) -> None:
    folder, _ = finished
    before = written(folder)
    summary = train_concepts(workspace=str(folder), params=str(folder / "params.yaml"))
    assert summary["concepts"] == {"fox": "up-to-date", "talker": "failed", "torn": "quarantined"}
    after = written(folder)
    assert {path: digest for path, (digest, _) in after.items()} == {path: digest for path, (digest, _) in before.items()}
    touched = {path.relative_to(folder / "artifacts").parts[0] for path in after if after[path] != before[path]}
    assert touched <= {"evaluation", "galleries", "locks"}  # where the overviews of all concepts lie, and who had their turn


def test_wrong_params_fail_the_run_without_a_traceback(server, checkout, caplog) -> None:
    settings = {"workspace": str(checkout), "params": str(checkout / "params.yaml"), "stages": ["validate", "train"]}
    with pytest.raises(ParamsError, match="generator.model"):
        train_concepts(**settings, overrides=["generator.model=/there/is/nothing"], concepts=["fox"])
    with pytest.raises(ParamsError, match="foks"):
        train_concepts(**settings, concepts=["foks"])
    ended = train_concepts(**settings, overrides=["train.stepz=3"], return_state=True)
    assert ended.is_failed() and "stepz" in ended.message
    said = caplog.text
    assert "Finished in state Failed" in said and "Traceback" not in said


def test_what_a_later_stage_could_not_do_is_refused_before_anything_is_done(server, checkout, tmp_path) -> None:
    fresh = Path(shutil.copytree(checkout, tmp_path / "fresh", ignore=shutil.ignore_patterns("artifacts", ".git")))
    for overrides, words in (
        (["generate.width=102"], "generate.width and generate.height: miniature draws no 102 × 64 pixels"),
        (["ranker.likeness=both", "ranker.dino=./nowhere"], "ranker.dino: there is no folder at .*nowhere"),
        (["judge.model=./nowhere"], "judge.model: there is no folder at .*nowhere"),
    ):
        with pytest.raises(ParamsError, match=words):
            train_concepts(workspace=str(fresh), params=str(fresh / "params.yaml"), overrides=overrides)
    assert not any((fresh / "artifacts").glob("manifests/*"))
    train_concepts(workspace=str(fresh), params=str(fresh / "params.yaml"), overrides=["generate.width=102"], stages=["validate"])
    assert Workspace.at(fresh, "x").manifest("fox").is_file()


@pytest.mark.parametrize(
    ("concepts", "troubles", "name", "completed"),
    [
        ({"fox": "done", "owl": "up-to-date"}, {}, "Completed", True),
        ({"fox": "done", "owl": "failed"}, {}, "Incomplete", True),
        ({"fox": "done"}, {"inbox: owl": "a name that no folder can have"}, "Incomplete", True),
        ({"fox": "quarantined", "owl": "failed"}, {}, "Failed", False),
        ({"fox": "done"}, {"versions": "no server answers"}, "Failed", False),
        ({"fox": "done"}, {"published": "no server answers"}, "Failed", False),
        ({"fox": "done"}, {"inbox": "the key is refused"}, "Failed", False),
    ],
)
def test_what_a_run_ends_as(concepts, troubles, name, completed) -> None:
    reasons = {slug: "why" for slug, state in concepts.items() if state not in ("done", "up-to-date")}
    state = ended({"concepts": concepts, "reasons": reasons, "troubles": troubles})
    assert (state.name, state.is_completed(), state.is_failed()) == (name, completed, not completed)
    assert all(why in state.message for why in troubles.values())


def test_a_misspelt_workspace_is_neither_made_nor_filled(server, checkout, tmp_path, monkeypatch) -> None:
    params = str(checkout / "params.yaml")
    with pytest.raises(ParamsError, match="there is no such folder"):
        train_concepts(workspace=str(tmp_path / "toyz"), params=params)
    with pytest.raises(ParamsError, match="params.yaml: there is no such file"):
        train_concepts(workspace=str(tmp_path))
    monkeypatch.delenv("TI_PIPELINE_WORKSPACE", raising=False)
    with pytest.raises(ParamsError, match="TI_PIPELINE_WORKSPACE"):
        train_concepts(params=params)
    assert not any(tmp_path.iterdir())


def test_a_run_waits_for_the_one_that_works_in_its_workspace(server, checkout) -> None:
    holding = "import sys; from pathlib import Path; from tasks.turn import turn\n"
    holding += "with turn(Path(sys.argv[1]), print): print('in', flush=True); input()"
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", holding, str(checkout)], cwd=ROOT, env=server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "in\n"
        with pytest.raises(PipelineError, match=f"the run of process {other.pid} on "):
            with turn(checkout, said.append, patience=0):
                pass

        def leave(text: str) -> None:
            said.append(text)
            other.communicate("\n")

        with turn(checkout, leave), turn(checkout, leave):  # the command's and the flow's
            assert other.poll() == 0 and f"waits for the run of process {other.pid}" in said[-1]


def attempts(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[int]:
    """`validate` raises the errors one after the other, then reports a fox; the retries wait no longer than it takes."""
    left, made = list(errors), []

    def work(stage, run):
        made.append(len(made) + 1)
        if left:
            raise left.pop(0)
        return [Outcome("validate", "fox", "done")]

    monkeypatch.setattr("tasks.stages.run_stage", work)
    monkeypatch.setitem(TASKS, "validate", TASKS["validate"].with_options(retry_delay_seconds=0))
    return made


@flow
def validate_only(folder: str) -> list[dict]:
    settings = load(Path(folder) / "params.yaml")
    return run_task("validate", Workspace.at(Path(folder), settings.concepts.folder), settings, None, force=False)


def test_a_full_device_is_tried_again(server, checkout, monkeypatch) -> None:
    made = attempts(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"), ConnectionResetError())
    assert [outcome["concept"] for outcome in validate_only(str(checkout))] == ["fox"]
    assert made == [1, 2, 3]


def test_a_device_that_stays_full_is_told_in_words(server, checkout, monkeypatch, caplog) -> None:
    made = attempts(monkeypatch, *[torch.OutOfMemoryError("CUDA out of memory")] * 5)
    with pytest.raises(PipelineError, match="validate: the memory was full"):
        train_concepts(workspace=str(checkout), params=str(checkout / "params.yaml"), stages=["validate"])
    assert made == [1, 2, 3]
    assert "Traceback" not in caplog.text


def test_wrong_params_are_not_tried_again(server, checkout, monkeypatch) -> None:
    made = attempts(monkeypatch, ParamsError("generator.model: there is nothing"))
    with pytest.raises(ParamsError):
        validate_only(str(checkout))
    assert made == [1]
