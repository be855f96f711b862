"""The pages in a real Chromium, opened from a folder with the network cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.gallery.hostile import TEXTS, hostile_workspace
from tests.gallery.small_gallery import COUNT, copied, small_params, whole
from ti_pipeline.gallery.build import build_index, build_page

WIDTHS = (390, 1280, 2560)

# WCAG 2.2, 1.4.3: the contrast of every visible text with what lies behind it; yields what falls short
CONTRAST = """() => {
  const channels = (css) => (css.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => { for (; e; e = e.parentElement) { const c = channels(getComputedStyle(e).backgroundColor);
    if (c.length == 3 || c[3] > 0) return c; }
    return [255, 255, 255]; };
  const short = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, style = getComputedStyle(e);
    if (!walker.currentNode.textContent.trim() || !e.checkVisibility()) continue;
    seen += 1;
    const [a, b] = [light(channels(style.color)), light(behind(e))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) short.push([e.className, walker.currentNode.textContent.slice(0, 30), ratio]);
  }
  return {seen, short};
}"""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gallery")
    workspace, manifest = whole(root)
    build_page(workspace, manifest, small_params())
    build_index(workspace, small_params(), ["toy"])
    return copied(workspace, root)


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Cut off from any network; whatever the console has to say, a blocked style among it, fails the test."""
    context = chromium.new_context(offline=True)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: complaints.append(request.url) if not request.url.startswith("file:") else None)
    yield page
    context.close()
    assert complaints == []


def overflow(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def test_pictures_and_style_load_under_the_policy(page: Page, gallery: Path):
    page.goto((gallery / "toy" / "index.html").as_uri())
    page.evaluate("document.querySelectorAll('img').forEach(i => { i.loading = 'eager' })")
    page.wait_for_function("[...document.images].filter(i => i.checkVisibility()).every(i => i.complete)")
    assert page.evaluate("[...document.images].filter(i => i.checkVisibility() && i.naturalWidth == 0).length") == 0
    assert page.evaluate("getComputedStyle(document.querySelector('.cards')).display") == "grid"
    assert page.evaluate("document.querySelector('.bar .fill').getBoundingClientRect().width") > 0


def test_the_policy_stops_what_the_page_does_not_bring(chromium: Browser, gallery: Path):
    page = chromium.new_page(offline=True)
    page.goto((gallery / "toy" / "index.html").as_uri())
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=probe style=color:red><img src=x onerror=window.pwned=1>')")
    page.wait_for_timeout(200)
    assert page.evaluate("getComputedStyle(document.querySelector('#probe')).color") != "rgb(255, 0, 0)"
    assert page.evaluate("window.pwned") is None
    page.close()


def test_the_fold_hides_the_rest_and_opens_without_a_script(page: Page, gallery: Path):
    page.goto((gallery / "toy" / "index.html").as_uri())
    brief = page.locator(".brief").first
    assert brief.get_by_text(f"4 best of {COUNT}").is_visible()
    assert brief.locator(".card:visible").count() == 4
    brief.locator("summary").click()
    assert brief.locator(".card:visible").count() == 4 + COUNT


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(page: Page, gallery: Path, scheme: str):
    page.emulate_media(color_scheme=scheme)
    for name in ("index.html", "toy/index.html"):
        page.goto((gallery / name).as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        found = page.evaluate(CONTRAST)
        assert found["seen"] > 5
        assert found["short"] == []


def test_the_pages_fit_from_a_phone_to_a_wall(page: Page, gallery: Path):
    for name in ("index.html", "toy/index.html"):
        page.goto((gallery / name).as_uri())
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow(page) <= 0, (name, width)


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts_neither_run_nor_break_the_layout(page: Page, tmp_path: Path, name: str):
    workspace, manifest = hostile_workspace(tmp_path, TEXTS[name])
    build_page(workspace, manifest, small_params())
    build_index(workspace, small_params(), ["toy"])
    for path in (workspace.galleries / "index.html", workspace.galleries / "toy" / "index.html"):
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow(page) <= 0, width
        assert page.evaluate("window.pwned") is None
    tallest = page.evaluate("Math.max(...[...document.querySelectorAll('.card')].map(c => c.getBoundingClientRect().height))")
    assert tallest < 1600
