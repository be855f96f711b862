"""A stage's last reason is kept beside its output, and is what later stages and `status` say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.stages.quick import ROOT, quick, run
from ti_pipeline.stages import reasons
from ti_pipeline.stages.status import survey
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import CANDIDATES, EMBEDDINGS, MANIFESTS, Outcome, Workspace


def files(workspace: Workspace) -> dict[str, bytes]:
    return {str(p.relative_to(workspace.root)): p.read_bytes() for p in workspace.artifacts.rglob("_reasons/*")}


@pytest.fixture()
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace.at(tmp_path, "concepts")
    for name in ("fox", "frog"):
        shutil.copytree(ROOT / "examples" / "concepts" / name, place.concepts / name)
    return place


def test_a_failed_training_is_the_reason_everywhere_until_it_is_done(workspace: Workspace) -> None:
    assert run(workspace, quick(), "validate")["validate"]["fox"].ok
    drifting = quick("train.max_norm=1.1", "train.learning_rate=1000")
    lost = run(workspace, drifting, *list(STAGES)[1:])
    kept = reasons.last(workspace, EMBEDDINGS, "fox")
    assert lost["train"]["fox"].state == kept.state == "failed" and lost["train"]["fox"].reason == kept.reason
    assert all(lost[stage]["fox"].reason == f"train: {kept.reason}" for stage in ("generate", "rank", "evaluate", "gallery"))
    assert reasons.read_all(workspace, STAGES.values())["fox"] == [kept] and len(files(workspace)) == 2
    row = survey(workspace, drifting)[0]
    assert (row["concept"], row["reason"]) == ("fox", f"train: {kept.reason}")
    assert [row["stages"][stage] for stage in ("validate", "train", "gallery")] == ["up-to-date", "failed", "failed"]
    before = files(workspace)
    run(workspace, drifting, *STAGES)
    assert files(workspace) == before

    done = run(workspace, quick(), *STAGES, names=["fox"])
    assert all(outcomes["fox"].ok for outcomes in done.values())
    assert list(reasons.read_all(workspace, STAGES.values())) == ["frog"]
    assert {row["concept"]: row["reason"] for row in survey(workspace, quick())}["fox"] == ""


def test_a_stage_that_fails_holds_up_only_those_that_need_it(workspace: Workspace) -> None:
    with (workspace.concepts / "fox" / "concept.yaml").open("a") as about:
        about.write("briefs: ['a {token} beside a <nobody>']\n")
    made = run(workspace, quick(), *STAGES, names=["fox"])
    assert {stage: outcomes["fox"].state for stage, outcomes in made.items()} == {
        "validate": "done", "train": "done", "generate": "failed", "rank": "failed", "evaluate": "done", "gallery": "failed",
        "compare": "done",
    }  # fmt: skip
    kept = reasons.last(workspace, CANDIDATES, "fox")
    assert made["rank"]["fox"].reason == made["gallery"]["fox"].reason == f"generate: {kept.reason}"
    assert reasons.read_all(workspace, STAGES.values()) == {"fox": [kept]}


def test_what_a_stage_said_of_other_inputs_is_forgotten(workspace: Workspace) -> None:
    run(workspace, quick(), "validate")
    drifting = quick("train.max_norm=1.1", "train.learning_rate=1000")
    assert run(workspace, drifting, "train", names=["fox"])["train"]["fox"].state == "failed"
    (workspace.concepts / "fox" / "concept.yaml").write_text("kin: object\n")
    run(workspace, drifting, "validate", "train", names=["fox"])
    assert reasons.last(workspace, EMBEDDINGS, "fox") is None


def test_what_is_no_concept_yet_has_a_reason_too(workspace: Workspace) -> None:
    (workspace.concepts / "frog" / "concept.yaml").write_text("kin: object\n")
    (workspace.concepts / "fox").rename(workspace.concepts / "My Fox: 🦊")
    assert not any(outcome.ok for outcome in run(workspace, quick(), "validate")["validate"].values())
    found = reasons.read_all(workspace, STAGES.values())
    assert list(found) == ["My Fox: 🦊", "frog"] and all(reason.state == "quarantined" for (reason,) in found.values())
    assert "Rename it" in found["My Fox: 🦊"][0].reason and "kin" in found["frog"][0].reason
    later = run(workspace, quick(), "train", names=["frog"])["train"]["frog"]
    assert (later.state, later.reason) == ("quarantined", f"in quarantine: {found['frog'][0].reason}")
    assert reasons.last(workspace, EMBEDDINGS, "frog") is None  # the earlier stage has it


def test_what_was_left_out_of_a_concept_that_went_on_is_kept(workspace: Workspace) -> None:
    (workspace.concepts / "fox" / "noise.png").write_bytes(b"no picture")
    for state in ("done", "up-to-date"):
        outcome = run(workspace, quick(), "validate")["validate"]["fox"]
        assert outcome.state == state
        assert reasons.read_all(workspace, STAGES.values())["fox"] == [reasons.Reason("validate", "fox", "done", outcome.reason)]
        written = next(iter((workspace.artifacts / MANIFESTS / reasons.FOLDER).iterdir())).stat().st_mtime_ns
    assert next(iter((workspace.artifacts / MANIFESTS / reasons.FOLDER).iterdir())).stat().st_mtime_ns == written
    run(workspace, quick(), *list(STAGES)[1:], names=["fox"])
    assert survey(workspace, quick())[0]["reason"] == f"validate: {outcome.reason}"
    (workspace.concepts / "fox" / "noise.png").unlink()
    run(workspace, quick(), "validate")
    assert reasons.read_all(workspace, STAGES.values()) == {}


def test_no_reason_says_where_the_workspace_lies(workspace: Workspace) -> None:
    root = workspace.root
    said = f"{root}/artifacts/x.parquet and {workspace.concepts}/fox/a.png: see https://a.org/b/c, /srv/models/sd 1.5/unet and and/or </w>"
    reasons.keep(workspace, EMBEDDINGS, Outcome("train", "fox", "failed", reason=said))
    kept = reasons.last(workspace, EMBEDDINGS, "fox").reason
    assert kept == "artifacts/x.parquet and fox/a.png: see https://a.org/b/c, …/sd 1.5/unet and and/or </w>"
    reasons.keep(workspace, EMBEDDINGS, Outcome("train", "fox", "done"))
    assert reasons.last(workspace, EMBEDDINGS, "fox") is None


def test_a_torn_file_is_no_reason(workspace: Workspace) -> None:
    folder = workspace.artifacts / EMBEDDINGS / reasons.FOLDER
    folder.mkdir(parents=True)
    for name, text in {"fox.json": '{"stage": "tra', "frog.json": "[]", "hat.json": "{}", ".x-1.json": ""}.items():
        (folder / name).write_text(text)
    assert reasons.read_all(workspace, STAGES.values()) == {} and reasons.before(workspace, STAGES["generate"].needs, "fox") is None
