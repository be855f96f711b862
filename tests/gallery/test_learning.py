"""How a word came about, on its page: the curve of its steps and what it drew meanwhile; and pages that have neither."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect

from tests.gallery.page_parser import Page
from tests.gallery.small_gallery import add_evaluation, add_learning, small_params, whole
from tests.gallery.test_in_a_browser import violations
from tests.stages.one import build_page
from ti_pipeline.files import digest_file
from ti_pipeline.gallery.learning import plotted
from ti_pipeline.workspace import Workspace


def html(workspace: Workspace) -> str:
    return (workspace.galleries / "toy" / "index.html").read_text(encoding="utf-8")


def test_the_curve_is_told_in_words_in_a_picture_and_in_a_table(tmp_path: Path) -> None:
    workspace, manifest = whole(tmp_path)
    add_learning(workspace)
    build_page(workspace, manifest, small_params())
    text = re.sub(r"\s+", " ", Page(workspace.galleries / "toy" / "index.html").text).replace(" ,", ",")
    assert "The word after 100 steps, the best compromise" in text and "(weighed 60 to 40)" in text
    assert "100 (taken) 70 80" in text and "300 104 –" in text
    told = re.search(r'class="plot" viewBox="0 0 320 164" role="img" aria-label="([^"]+)"', html(workspace))
    assert told and told[1].startswith("Likeness goes from 10 to 104, at the step taken it is 70; Follows the prompt goes from 102 to 35")
    assert told[1].endswith("From 20 to 300 steps; the word after 100 steps is taken.")
    assert "100 · taken" in text and "300 steps" in text and "before" in text


def test_marks_lie_where_their_numbers_are() -> None:
    rows = [{"step": 0, "alike": 0.0, "faithful": 100.0, "chosen": False}, {"step": 50, "alike": 50.0, "faithful": None, "chosen": True}]
    curve = plotted([*rows, {"step": 100, "alike": 100.0, "faithful": 0.0, "chosen": False}], 0.5)
    like, faith = curve.lines
    assert (curve.hundred, curve.zero) == (10, 130) and curve.chosen_x == like.points[1][0]
    assert [y for _, y in like.points] == [130, 70, 10] and [y for _, y in faith.points] == [10, 130]
    left, middle, right = (x for x, _ in like.points)
    assert middle - left == pytest.approx(right - middle)


def test_one_step_and_a_measure_without_a_scale_are_shown(tmp_path: Path) -> None:
    curve = plotted([{"step": 7, "alike": 130.0, "faithful": None, "chosen": True}], 1.0)
    assert (
        [line.name for line in curve.lines] == ["Likeness"] and "Follows" not in curve.told and curve.hundred > curve.lines[0].points[0][1]
    )


def test_a_page_without_them_says_nothing_of_them(tmp_path: Path) -> None:
    workspace, manifest = whole(tmp_path)
    build_page(workspace, manifest, small_params())
    assert "Which step" not in html(workspace) and "What it drew" not in html(workspace)
    add_learning(workspace)
    assert build_page(workspace, manifest, small_params()).state == "done"
    frames = sorted((workspace.galleries / "toy" / "frames").iterdir())
    assert len(frames) == 4 and "Which step" in html(workspace)
    workspace.strip("toy").unlink()
    assert build_page(workspace, manifest, small_params()).state == "done"
    assert not any(path.exists() for path in frames) and "Which step" in html(workspace)
    workspace.curve("toy").unlink()
    assert build_page(workspace, manifest, small_params()).state == "done" and "Which step" not in html(workspace)


def test_the_curve_of_another_word_is_not_shown(tmp_path: Path) -> None:
    workspace, manifest = whole(tmp_path)
    curve = workspace.curve("toy")
    add_learning(workspace)
    kept, before = curve.read_bytes(), digest_file(workspace.embedding("toy"))
    workspace, manifest = whole(tmp_path / "other")
    workspace.curve("toy").write_bytes(kept)
    add_evaluation(workspace)
    assert digest_file(workspace.embedding("toy")) != before
    build_page(workspace, manifest, small_params())
    assert "Which step" not in html(workspace)


def test_it_can_be_seen_used_and_printed(page: Tab, address: str) -> None:
    """In grey too: the lines differ in their dashes and marks."""
    page.goto(f"{address}toy/index.html")
    plot = page.locator(".curve > .plot")
    assert plot.bounding_box()["height"] > 60
    like, faith = (page.locator(f".curve > .plot .{style} polyline") for style in ("like", "faith"))
    dashes = [line.evaluate("line => getComputedStyle(line).strokeDasharray") for line in (like, faith)]
    assert dashes[0] == "none" and dashes[1] != "none"
    assert page.locator(".curve > .plot .like circle").count() == 4 and page.locator(".curve > .plot .faith rect").count() == 3
    page.locator(".curve summary").click()
    expect(page.get_by_role("row", name="100 (taken) 70 80")).to_be_visible()
    assert violations(page) == [], "the table open"
    film = page.locator(".film")
    expect(film.get_by_role("img", name="After 200 steps")).to_be_attached()
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.emulate_media(media="print")
    expect(page.locator(".toolbar")).to_be_hidden()
    expect(plot).to_be_visible()
    assert film.evaluate("film => film.scrollWidth <= film.clientWidth")
    page.emulate_media(media="screen")
    page.goto(f"{address}ink/index.html")
    expect(page.locator(".curve, .learning")).to_have_count(0)
