"""The report in a real browser, from a folder with nothing beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.gallery.conftest import chromium  # noqa: F401
from tests.stages.test_compare import compare, place, small
from ti_pipeline.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """With a setup whose name is markup, a curve of both measures, a sweep and an arm that comes to nothing."""
    made = place(tmp_path_factory.mktemp("compared"))
    sweep = "compare.sweeps={rate: {key: learning_rate, values: [0.001, 0.01, 0.1]}}"
    tables = "'<img src=x onerror=alert(1)>': {vectors: 2}, said: {caption: short}"
    compare(made, small(tables, sweep, "compare.step_samples_per_prompt=1"))
    return made


def test_the_page_needs_nothing_beside_it(workspace: Workspace, chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    page_file = shutil.copy(workspace.comparison / "report.html", tmp_path)
    for width, scheme in ((1280, "light"), (390, "dark")):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked, said = [], []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("console", lambda message, said=said: said.append(message.text))
        page.on("dialog", lambda dialog, said=said: (said.append(dialog.message), dialog.dismiss()))
        page.goto(Path(page_file).as_uri())
        assert page.title() == "6 setups compared" and said == []
        assert [url for url in asked if not url.startswith("data:")] == [Path(page_file).as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("img").evaluate_all("all => all.every(one => one.complete && one.naturalWidth > 0)")
        names = page.locator(".arms tbody th bdi:first-of-type").all_inner_texts()
        assert "<img src=x onerror=alert(1)>" in names and {"one word", "rate 0.1", "image only", "prompt only"} <= set(names)
        assert page.locator(".plate").count() == 3  # the figure, the curves, the sweep
        page.close()


def test_one_concept_is_open_and_another_is_chosen_without_a_script(workspace: Workspace, chromium: Browser) -> None:  # noqa: F811
    page = chromium.new_page()
    page.goto((workspace.comparison / "report.html").as_uri())
    walls = page.locator("details.wall")
    assert walls.evaluate_all("all => all.map(one => one.open)") == [True, False]
    walls.nth(1).locator("summary").click()
    assert walls.evaluate_all("all => all.map(one => one.open)") == [False, True]
    rows = walls.nth(1).locator(".drawn h3").all_inner_texts()
    assert rows[:2] == ["prompt only", "one word"] and "rate 0.001" in rows
    assert walls.nth(1).locator(".heads li").count() == 5 and "human_captions" in walls.nth(1).inner_text()
    page.close()


def test_on_paper_every_concept_is_there(workspace: Workspace, chromium: Browser, tmp_path: Path) -> None:  # noqa: F811
    page = chromium.new_page()
    page.goto((workspace.comparison / "report.html").as_uri())
    page.emulate_media(media="print")
    shown = page.locator("details.wall .drawn img").evaluate_all("all => all.filter(one => one.getBoundingClientRect().height > 20).length")
    assert shown == page.locator("details.wall .drawn img").count() == 12
    assert not page.locator(".contents").is_visible()
    assert page.pdf(path=tmp_path / "report.pdf").startswith(b"%PDF")
    page.close()
