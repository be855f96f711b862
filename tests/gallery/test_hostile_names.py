from __future__ import annotations

from pathlib import Path

import pytest

from tests.gallery.hostile import BIDI, MARK, SCRIPT, TEXTS, hostile_workspace
from tests.gallery.page_parser import Page
from tests.gallery.small_gallery import add_candidates, make_workspace, small_params
from tests.stages.one import build_index, build_page
from ti_pipeline.concepts.manifest import read_manifest


def build(root: Path, text: str, title: str = "Learnt concepts") -> tuple[Page, Page]:
    workspace, manifest = hostile_workspace(root, text)
    params = small_params()
    params = params.model_copy(update={"gallery": params.gallery.model_copy(update={"title": title})})
    build_page(workspace, manifest, params)
    return Page(workspace.galleries / "toy" / "index.html"), Page(build_index(workspace, params, ["toy"]))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_changes_no_element(tmp_path: Path, name: str):
    harmless = build(tmp_path / "harmless", "a harmless text", "a harmless text")
    hostile = build(tmp_path / "hostile", TEXTS[name], TEXTS[name])
    for expected, page in zip(harmless, hostile, strict=True):
        assert page.tags() == expected.tags()
        assert [sorted(attributes) for _, attributes in page.elements] == [sorted(attributes) for _, attributes in expected.elements]
        assert not any(MARK in link for link in page.links())
        assert not set(page.path.read_text(encoding="utf-8")) & {chr(c) for c in (*range(9), 11, 12, *range(14, 32), 127)}


def test_texts_are_shown_as_they_are(tmp_path: Path):
    page, overview = build(tmp_path, SCRIPT, SCRIPT)
    assert page.text.count(f"<script>{MARK}</script>") > 5
    assert "{{ 7*7 }}" in page.text and "onerror=window.pwned=1>49" not in page.text
    assert f"<script>{MARK}</script>" in overview.text


def test_marks_that_turn_the_direction_stay_inside(tmp_path: Path):
    page, _ = build(tmp_path, BIDI)
    html = page.path.read_text(encoding="utf-8")
    body = html[html.index("<body") :]
    for piece in body.split(BIDI)[:-1]:
        inside = piece.rfind("<bdi") > piece.rfind("</bdi>")
        attribute = piece.rfind("<") > piece.rfind(">")
        assert inside or attribute, piece[-120:]


def test_an_empty_brief_and_empty_texts(tmp_path: Path):
    workspace = make_workspace(tmp_path)
    add_candidates(workspace, prompts=("",), prompt="", reason="", solver="")
    build_page(workspace, read_manifest(workspace, "toy"), small_params())
    assert "(an empty brief)" in Page(workspace.galleries / "toy" / "index.html").text
