"""What of a withdrawn concept goes, and what stays."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from tests.stages.quick import ROOT, quick, run
from ti_pipeline.errors import ParamsError
from ti_pipeline.files import digest_file
from ti_pipeline.inversion.checkpoint import Checkpoint, Saved, concepts_in, write_checkpoint
from ti_pipeline.inversion.leaves import Learning
from ti_pipeline.inversion.setups.setup import Learnable
from ti_pipeline.inversion.state import State
from ti_pipeline.stages import reasons
from ti_pipeline.stages.collection import current, remove_withdrawn, validated
from ti_pipeline.stages.table import STAGES
from ti_pipeline.workspace import MANIFESTS, Outcome, Workspace


@pytest.fixture()
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace.at(tmp_path, "concepts")
    for name in ("fox", "frog"):
        shutil.copytree(ROOT / "examples" / "concepts" / name, place.concepts / name)
    return place


def named(workspace: Workspace, slug: str) -> list[str]:
    """Files whose path says that they are of a concept, and texts that name it."""
    texts = (".json", ".html", ".csv", ".js")
    files = {path.relative_to(workspace.root).as_posix(): path for path in workspace.artifacts.rglob("*") if path.is_file()}
    return [name for name, path in files.items() if slug in name or (path.suffix in texts and slug in path.read_text())]


def test_nothing_of_a_withdrawn_concept_stays_but_what_people_chose(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    made = run(workspace, quick(), *STAGES)
    assert all(outcome.ok for outcomes in made.values() for outcome in outcomes.values())
    assert len(named(workspace, "frog")) > 20
    chosen = workspace.root / "choices" / "frog.json"
    chosen.parent.mkdir(exist_ok=True)
    chosen.write_text("[]")
    _checkpoint(workspace, "pack-of-both", "fox", "frog")
    _checkpoint(workspace, "pack-of-one", "frog")
    for stage in STAGES:
        reasons.keep(workspace, STAGES[stage].output, Outcome(stage, "frog", "done", reason="a frog was left out"))
    shutil.rmtree(workspace.concepts / "frog")

    run(workspace, quick(), "validate", "gallery", names=["fox"])  # a part of the collection says nothing of the rest
    assert current(workspace) == {"fox", "frog"} and (workspace.galleries / "frog" / "index.html").is_file()
    with caplog.at_level(logging.WARNING):
        again = run(workspace, quick(), *STAGES)
    assert [(slug, o.state) for outcomes in again.values() for slug, o in outcomes.items()] == [("fox", "up-to-date")] * len(STAGES)
    assert [record.getMessage() for record in caplog.records if "frog: withdrawn" in record.getMessage()]
    assert current(workspace) == {"fox"} and reasons.read_all(workspace, STAGES.values()) == {}
    _checkpoint(workspace, "pack-of-both", "fox")  # of which a later training takes up what is left
    assert named(workspace, "frog") == [] and chosen.is_file()
    assert [path.name for path in workspace.checkpoint("x").parent.iterdir()] == ["pack-of-both.safetensors"]
    assert json.loads((workspace.evaluation / "metrics.json").read_text())["concepts"] == 1
    asked = json.loads((workspace.choices / "_questionnaire.json").read_text())
    shown = {picture for question in asked.values() for picture in question["setups"]}
    assert {question["concept"] for question in asked.values()} == {"fox"}
    hung = {path.stem for path in (workspace.galleries / "_questionnaire").glob("*.webp")}
    references = [digest_file(path)[:16] for path in (workspace.concepts / "fox").glob("*.png")]
    assert shown <= hung <= {*shown, *references}


def test_the_picture_of_what_needed_fixing_goes_with_its_concept(workspace: Workspace) -> None:
    (workspace.concepts / "frog" / "concept.yaml").write_text("kin: object\n")
    run(workspace, quick(), "validate", "gallery")
    assert len(list((workspace.galleries / "_needs").iterdir())) == 1 and named(workspace, "frog")
    shutil.rmtree(workspace.concepts / "frog")
    run(workspace, quick(), "validate", "gallery")
    assert list((workspace.galleries / "_needs").iterdir()) == named(workspace, "frog") == []


def _checkpoint(workspace: Workspace, name: str, *slugs: str) -> None:
    import torch

    word = Learning.begun(Learnable({"clip_l": torch.zeros(1, 4)}, {"<word>": 1}))
    seats = [Saved(slug, "key", State(), word) for slug in slugs]
    write_checkpoint(workspace.checkpoint(name), Checkpoint(1, 2, seats))
    assert concepts_in(workspace.checkpoint(name)) == set(slugs)


def test_a_concept_that_is_held_back_keeps_what_was_made_of_it(workspace: Workspace) -> None:
    run(workspace, quick(), "validate")
    for slug in ("fox", "frog"):
        workspace.embedding(slug).parent.mkdir(parents=True)
        workspace.embedding(slug).write_bytes(b"hours of work")
    about = workspace.concepts / "frog" / "concept.yaml"
    right = about.read_text()
    about.write_text("kin: object\n")
    run(workspace, quick(), "validate")
    assert validated(workspace) == ["fox"] and current(workspace) == {"fox", "frog"}
    shutil.rmtree(workspace.artifacts / MANIFESTS)  # even when the manifests are lost: its folder is there
    run(workspace, quick(), "validate", names=["fox"])
    remove_withdrawn(workspace, STAGES.values())
    assert workspace.embedding("frog").is_file()
    about.write_text(right)
    assert run(workspace, quick(), "validate")["validate"]["frog"].ok


@pytest.mark.parametrize("left", ["no folder", "nothing", "a file", "lost+found", "another collection"])
def test_a_folder_that_looks_like_no_withdrawal_takes_nothing_away(workspace: Workspace, left: str) -> None:
    run(workspace, quick(), "validate")
    workspace.embedding("fox").parent.mkdir(parents=True)
    shutil.rmtree(workspace.concepts)
    if left != "no folder":
        workspace.concepts.mkdir()
    if left == "a file":
        (workspace.concepts / "notes.txt").write_text("")
    if left == "lost+found":
        (workspace.concepts / "lost+found").mkdir()
    if left == "another collection":
        shutil.copytree(ROOT / "examples" / "concepts" / "strawberry", workspace.concepts / "strawberry")
    with pytest.raises(ParamsError, match="concepts.folder: .*concepts (cannot be read|holds)"):
        run(workspace, quick(), "validate")
    assert validated(workspace) == ["fox", "frog"] and workspace.embedding("fox").parent.is_dir()


def test_without_any_manifest_nothing_is_taken_for_withdrawn(workspace: Workspace) -> None:
    workspace.embedding("hat").parent.mkdir(parents=True)
    with pytest.raises(ParamsError, match="holds no manifest"):
        run(workspace, quick(), "train")
    remove_withdrawn(workspace, STAGES.values())
    assert workspace.embedding("hat").parent.is_dir()
