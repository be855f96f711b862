"""A stage more is a module and a line in the table: everything else reads it there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.logging import disable_run_logger

from tasks.stages import limit, task_of
from tests.stages.quick import ROOT, quick, run
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file, write_json
from ti_pipeline.stages import declared, reasons
from ti_pipeline.stages.run import run_stage
from ti_pipeline.stages.stage import Lost, Plan, Run, Stage
from ti_pipeline.stages.status import survey
from ti_pipeline.stages.table import STAGES, with_something_to_do
from ti_pipeline.workspace import MANIFESTS, Outcome, Workspace, fingerprint


def path_of(workspace: Workspace, concept: str) -> Path:
    return workspace.artifacts / "counts" / f"{concept}.json"


def plan(run: Run, slug: str) -> Plan:
    manifest, path = read_manifest(run.workspace, slug), path_of(run.workspace, slug)
    wanted = fingerprint("count", 1, {"manifest": manifest.digest}, run.params.section("seed"))
    stands = None
    if path.is_file() and json.loads(path.read_text())["fingerprint"] == wanted:
        stands = Outcome("count", slug, "up-to-date", path=str(path), digest=digest_file(path))
    return Plan(slug, wanted, stands, manifest)


def work(run: Run, plans: Sequence[Plan]) -> Iterator[Outcome | Lost]:
    for each in plans:
        pictures = [each.order.open(picture) for picture in each.order.pictures]
        if len(pictures) > 4:
            yield Lost(each.concept, ConceptError(each.concept, "more than four. Take some out."))
            continue
        path = path_of(run.workspace, each.concept)
        write_json(path, {"pictures": len(pictures), "fingerprint": each.fingerprint})
        run.report(1, 1, "counted")
        yield Outcome("count", each.concept, "done", path=str(path), digest=digest_file(path))


COUNT = Stage(
    name="count", about="Count pictures.", output="counts", places=("{}.json",), last=path_of, reads=(MANIFESTS,), needs=(MANIFESTS,),
    sections=("seed",), models=(), hours=0.1, plan=plan, work=work,
)  # fmt: skip


@pytest.fixture(params=[False, True], ids=["one by one", "together"])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = replace(COUNT, together=request.param)
    monkeypatch.setitem(STAGES, "count", stage)
    return stage


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    workspace = Workspace.at(tmp_path, "concepts")
    for name in ("fox", "frog", "ladybug"):
        shutil.copytree(ROOT / "examples" / "concepts" / name, workspace.concepts / name)
    for number in range(2):
        shutil.copy(ROOT / "examples" / "concepts" / "fox" / "white.png", workspace.concepts / "frog" / f"{number}.png")
    for path in (workspace.concepts / "ladybug").glob("*.png"):
        path.unlink()
    run(workspace, quick(), "validate")
    return workspace


def test_it_is_run_as_all_others_are(count: Stage, place: Workspace) -> None:
    made = run(place, quick(), "count")["count"]
    assert {slug: outcome.state for slug, outcome in made.items()} == {"fox": "done", "frog": "failed", "ladybug": "quarantined"}
    assert "in quarantine: no pictures" in made["ladybug"].reason
    assert [reason.concept for reason in reasons.of_output(place, "counts")] == ["frog"]
    again = run(place, quick(), "count", names=["fox"])["count"]
    assert again["fox"].state == "up-to-date" and again["fox"].digest == made["fox"].digest
    said: list[tuple[int, int, str]] = []
    forced = run_stage(count, Run.over(place, quick(), ["fox"], force=True, report=lambda *words: said.append(words)))
    assert forced[0].state == "done" and any("counted" in text for _, _, text in said)
    assert [outcome.state for outcome in run_stage(count, Run.over(place, quick("seed=1"), ["fox"]))] == ["done"]


def test_status_has_it(count: Stage, place: Workspace) -> None:
    run(place, quick(), *STAGES, names=["fox"])
    row = survey(place, quick())[0]
    assert list(row["stages"]) == with_something_to_do(quick()) and set(row["stages"].values()) == {"up-to-date"}
    path_of(place, "fox").write_text(json.dumps({"fingerprint": "another"}))
    assert survey(place, quick())[0]["stages"]["count"] == "stale"


def test_a_prefect_task_has_it(count: Stage, place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = task_of(count)
    assert (counting.name, counting.description, limit("count", 3)) == ("count", "Count pictures.", 3 * 0.1 * 3600)
    with disable_run_logger():
        outcomes = counting.fn(place, quick(), ["fox", "frog"], force=False)
    assert [(outcome["stage"], outcome["concept"], outcome["state"]) for outcome in outcomes] == [
        ("count", "fox", "done"), ("count", "frog", "failed")
    ]  # fmt: skip


def test_what_it_has_made_goes_with_its_concept(count: Stage, place: Workspace) -> None:
    run(place, quick(), "count")
    left = path_of(place, "fox").with_name(".fox-abcd1234.json")
    left.write_text("half")
    shutil.rmtree(place.concepts / "fox")
    shutil.rmtree(place.concepts / "frog")
    run(place, quick(), "validate", "count")
    assert [path.name for path in path_of(place, "fox").parent.rglob("*") if path.is_file()] == []


def test_its_entry_of_dvc_yaml_follows_from_it() -> None:
    assert declared.entry(COUNT)["params"] == ["seed"]
    assert {"artifacts/manifests", "ti_pipeline/stages/run.py"} <= set(declared.entry(COUNT)["deps"])
    assert declared.entry(COUNT)["outs"] == [{"artifacts/counts": {"persist": True}}]
