from __future__ import annotations

import pytest
from PIL import Image

from tests.stages.one import validate_one
from ti_pipeline.concepts.concept import load_concept
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.errors import ConceptError
from ti_pipeline.files import digest_file
from ti_pipeline.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.at(tmp_path, "concepts")


def test_done_once_and_then_up_to_date(duck, workspace, params):
    first = validate_one(workspace, load_concept(duck), params)
    assert (first.stage, first.concept, first.state, first.reason) == ("validate", "duck-toy", "done", "")
    assert first.path == str(workspace.manifest("duck-toy")) and first.digest == digest_file(workspace.manifest("duck-toy"))
    written = workspace.manifest("duck-toy").stat().st_mtime_ns
    second = validate_one(workspace, load_concept(duck), params)
    assert (second.state, second.digest) == ("up-to-date", first.digest)
    assert workspace.manifest("duck-toy").stat().st_mtime_ns == written
    assert validate_one(workspace, load_concept(duck), params, force=True).state == "done"


def test_everything_that_it_depends_on_makes_it_stale(duck, workspace, params):
    def state(params=params, ranker=""):
        return validate_one(workspace, load_concept(duck), params, ranker).state

    assert state() == "done"
    stricter = params.model_copy(update={"validate_": params.validate_.model_copy(update={"min_edge": 33})})
    assert [state(stricter), state(stricter), state()] == ["done", "up-to-date", "done"]
    assert [state(ranker="another"), state()] == ["done", "done"]
    (duck / "concept.yaml").write_text("initializer: duck")
    assert [state(), state()] == ["done", "up-to-date"]
    (duck / "00.jpg").rename(duck / "zz.jpg")
    assert [state(), state()] == ["done", "up-to-date"]
    Image.new("RGB", (64, 64)).save(duck / "zz.jpg")
    assert [state(), state()] == ["done", "up-to-date"]
    (duck / "notes.md").write_text("none of its business")
    assert state() == "up-to-date"
    workspace.report("duck-toy").unlink()
    assert [state(), state()] == ["done", "up-to-date"]
    workspace.manifest("duck-toy").write_bytes(b"torn")
    assert [state(), state()] == ["done", "up-to-date"]


def test_a_file_that_is_left_out_is_named_every_time_and_the_others_are_used(duck, workspace, params):
    (duck / "noise.jpg").write_bytes(b"no picture")
    first, again = (validate_one(workspace, load_concept(duck), params) for _ in range(2))
    assert (first.state, again.state) == ("done", "up-to-date") and first.ok and again.ok
    assert first.reason == again.reason
    assert first.reason.startswith("1 of its ") and "files left out: noise.jpg: not a picture" in first.reason
    assert "noise.jpg" not in [picture.file for picture in read_manifest(workspace, "duck-toy").pictures]
    (duck / "noise.jpg").unlink()
    assert validate_one(workspace, load_concept(duck), params).reason == ""


def test_params_of_other_stages_do_not_matter(duck, workspace, params):
    validate_one(workspace, load_concept(duck), params)
    longer = params.model_copy(update={"train": params.train.model_copy(update={"steps": 9999})})
    assert validate_one(workspace, load_concept(duck), longer).state == "up-to-date"


def test_quarantine_is_remembered_and_left_when_a_picture_comes(concept_folder, workspace, params, photo):
    path = concept_folder()
    for _ in range(2):
        outcome = validate_one(workspace, load_concept(path), params)
        assert (outcome.state, outcome.reason, outcome.ok) == ("quarantined", "no pictures in the folder", False)
    assert workspace.report("thing").is_file()
    photo.save(path / "a.png")
    assert validate_one(workspace, load_concept(path), params).state == "done"


def test_a_folder_that_is_gone_takes_its_manifest_along(duck, workspace, params):
    concept = load_concept(duck)
    validate_one(workspace, concept, params)
    duck.rename(duck.with_name("elsewhere"))
    outcome = validate_one(workspace, concept, params)
    assert outcome.state == "quarantined" and "cannot be read" in outcome.reason
    with pytest.raises(ConceptError, match="has not been validated"):
        read_manifest(workspace, "duck-toy")
