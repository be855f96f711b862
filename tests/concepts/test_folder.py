from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ti_pipeline.concepts.concept import discover, load_concept
from ti_pipeline.concepts.folder import MOST_BYTES, MOST_FILES, list_folder
from ti_pipeline.errors import ConceptError


def test_what_is_a_picture_what_is_passed_over(duck):
    for name in (".DS_Store", "._00.jpg", "Thumbs.db", "desktop.ini", "README", "LICENSE", "notes.md", "concept.yaml", "film.mp4"):
        (duck / name).write_bytes(b"x")
    for name in ("~$notes.docx", "00.jpg~", "x.jpg.part", "00.npz", "00.safetensors", "00.XMP", "IMG_1.AAE", "00.jpg.dvc", "more.webloc"):
        (duck / name).write_bytes(b"x")
    for name in ("more", "__MACOSX", "@eaDir", "thumbnails"):
        (duck / name).mkdir()
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


def test_litter_beside_the_sets_is_no_concept(duck):
    for name in ("@eaDir", "#recycle", "lost+found", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", ".Trash-1000", "@__thumb"):
        (duck.parent / name).mkdir()
    concepts, errors = discover(duck.parent)
    assert [concept.slug for concept in concepts] == ["duck-toy"] and not errors


def test_a_caption_is_read_from_kohyas_file_too_and_a_txt_goes_before_it(duck):
    (duck / "00.caption").write_text("a {token} on grass")
    (duck / "01.caption").write_text("a {token} in a box")
    (duck / "01.txt").write_text("a {token} on a stone")
    assert load_concept(duck).captions == {"00.jpg": "a {token} on grass", "01.jpg": "a {token} on a stone"}


def test_a_giant_is_not_opened_and_of_an_archive_only_the_first(folder):
    path = folder()
    for number in range(MOST_FILES + 2):
        (path / f"{number:05}.jpg").write_bytes(b"x")
    with (path / "00000.jpg").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with (path / "00001.jpg").open("wb") as file:
        file.truncate(MOST_BYTES)
    refusals = [entry.refusal for entry in list_folder(path).files]
    assert refusals[0].startswith("larger than 512 MB") and not any(refusals[1:MOST_FILES])
    assert len(refusals) == MOST_FILES + 2 and all(f"the set has {MOST_FILES + 2} files" in each for each in refusals[MOST_FILES:])


def dvc(workspace: Path, *words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words, "-q"], cwd=workspace, check=True)


@pytest.mark.parametrize("cache", [None, "cache beside it"])
def test_dvcs_own_links_are_the_files_and_no_others(cache, duck, tmp_path):
    dvc(tmp_path, "init", "--no-scm")
    config = "[core]\n    no_scm = True\n[cache]\n    type = symlink\n" + (f'    dir = "../{cache}"\n' if cache else "")
    (tmp_path / ".dvc" / "config").write_text(config)
    dvc(tmp_path, "add", "concepts")
    stored = (duck / "00.jpg").resolve()
    assert (duck / "00.jpg").is_symlink() and stored.is_relative_to(tmp_path / (cache or ".dvc/cache"))
    assert [(entry.name, entry.refusal) for entry in list_folder(duck).files] == [(f"0{number}.jpg", "") for number in range(4)]

    beside = stored.parents[3] / "secret"
    beside.write_bytes(b"x")
    (tmp_path / "files" / "md5" / "ab").mkdir(parents=True)
    named_alike = tmp_path / "files" / "md5" / "ab" / stored.name
    named_alike.write_bytes(b"x")
    listing = next(stored.parents[1].rglob("*.dir"))  # names every file of the collection
    for number, target in enumerate((beside, named_alike, listing, Path("/etc/passwd"))):
        (duck / f"x{number}.jpg").symlink_to(target)
    assert all("outside the set" in entry.refusal for entry in list_folder(duck).files[4:])


def test_a_set_does_not_say_itself_which_files_are_dvcs(duck, tmp_path):
    secret = tmp_path / "files" / "md5" / "ab" / ("c" * 30)
    secret.parent.mkdir(parents=True)
    secret.write_bytes(b"x")
    (duck / ".dvc").mkdir()
    (duck / ".dvc" / "config").write_text(f"[cache]\n    dir = {tmp_path}\n")
    (duck / "x.jpg").symlink_to(secret)
    assert "outside the set" in list_folder(duck).files[-1].refusal
    (tmp_path / ".dvc").mkdir()
    for broken in ("[cache\n", "[cache]\n    nonsense = 1\n"):
        (tmp_path / ".dvc" / "config").write_text(broken)
        assert "outside the set" in list_folder(duck).files[-1].refusal
