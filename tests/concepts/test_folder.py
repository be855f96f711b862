from __future__ import annotations

import os

import pytest

from ti_pipeline.concepts.folder import list_folder
from ti_pipeline.errors import ConceptError


def test_what_is_a_picture_what_is_passed_over(duck):
    for name in (".DS_Store", "._00.jpg", "Thumbs.db", "desktop.ini", "README", "LICENSE", "notes.md", "concept.yaml", "film.mp4"):
        (duck / name).write_bytes(b"x")
    (duck / "more").mkdir()
    (duck / "__MACOSX").mkdir()
    listing = list_folder(duck)
    assert [entry.name for entry in listing.files] == ["00.jpg", "01.jpg", "02.jpg", "03.jpg", "film.mp4"]
    assert {entry.name for entry in listing.texts} == {"README", "LICENSE", "notes.md", "concept.yaml"}
    assert listing.subfolders == ("more",)
    assert not any(entry.refusal for entry in listing.files)


def test_what_is_not_opened_at_all(duck, tmp_path):
    (tmp_path / "outside.jpg").write_bytes((duck / "00.jpg").read_bytes())
    (duck / "a-link.jpg").symlink_to(tmp_path / "outside.jpg")
    (duck / "b-relative.jpg").symlink_to("../../outside.jpg")
    (duck / "c-broken.jpg").symlink_to("nothing.jpg")
    (duck / "d-loop.jpg").symlink_to("d-loop.jpg")
    (duck / "e-inside.jpg").symlink_to("00.jpg")
    os.mkfifo(duck / "f-pipe.jpg")
    with open(os.fsencode(duck) + b"/g-\xe9.jpg", "wb") as file:
        file.write(b"x")
    refusals = {entry.name: entry.refusal for entry in list_folder(duck).files}
    assert "outside the set" in refusals["a-link.jpg"] and "outside the set" in refusals["b-relative.jpg"]
    assert "leads nowhere" in refusals["c-broken.jpg"] and "leads nowhere" in refusals["d-loop.jpg"]
    assert refusals["e-inside.jpg"] == "" and refusals["00.jpg"] == ""
    assert refusals["f-pipe.jpg"] == "not a regular file"
    assert "UTF-8" in refusals["g-\\xe9.jpg"]


def test_a_linked_concept_folder_is_a_set_of_its_own(duck, tmp_path):
    (tmp_path / "linked").symlink_to(duck)
    assert not any(entry.refusal for entry in list_folder(tmp_path / "linked").files)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConceptError, match="cannot be read"):
        list_folder(tmp_path / "nowhere")
