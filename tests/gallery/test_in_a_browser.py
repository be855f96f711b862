"""The pages in a real Chromium: what they load, what they forbid, whether they fit, and whether everyone can use them."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.gallery.hostile import MANY, MARK, hostile_workspace
from tests.gallery.screenshots import settle, until
from tests.gallery.small_gallery import COUNT, add_candidates, make_workspace, small_params
from tests.stages.one import build_index, build_page
from ti_pipeline.concepts.manifest import read_manifest

WIDTHS = (390, 1280, 2560)
PAGES = ("index.html", "toy/index.html", "_questionnaire/index.html")
AXE = Path(__file__).with_name("axe.min.js")


def overflow(page: Page) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds; it comes in through the protocol, for the page's policy lets no foreign script in."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations'], preload: false})")
    return [(v["id"], [node["html"][:160] + " " + node["failureSummary"][:300] for node in v["nodes"][:3]]) for v in found["violations"]]


def test_pictures_style_and_script_load_under_the_policy(page: Page, address: str):
    for name in PAGES:
        page.goto(address + name)
        settle(page)
        assert page.evaluate("[...document.images].filter(i => i.checkVisibility() && i.naturalWidth == 0).length") == 0
    page.goto(f"{address}toy/index.html")
    assert page.evaluate("document.querySelector('.bar .fill').getBoundingClientRect().width") > 0
    expect(page.locator(".choose:visible")).to_have_count(8)


def test_the_policy_stops_what_the_page_does_not_bring(chromium: Browser, folder: str):
    page = chromium.new_page(offline=True)
    page.goto(f"{folder}toy/index.html")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=probe style=color:red><img src=x onerror=window.pwned=1>')")
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned=2'}))")
    page.wait_for_timeout(100)
    assert page.evaluate("getComputedStyle(document.querySelector('#probe')).color") != "rgb(255, 0, 0)"
    assert page.evaluate("window.pwned") is None
    page.close()


def test_without_a_script_every_candidate_is_there(chromium: Browser, folder: str):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{folder}toy/index.html")
    expect(page.locator(".card:visible")).to_have_count(2 * COUNT)
    expect(page.locator(".toolbar")).to_be_hidden()
    context.close()


def test_axe_finds_nothing(page: Page, address: str):
    """In the folder light, on the server dark."""
    page.emulate_media(color_scheme="light" if address.startswith("file:") else "dark")
    for name in PAGES:
        page.goto(address + name)
        settle(page)
        assert violations(page) == [], name
    page.goto(f"{address}toy/index.html")
    page.locator(".stack:visible").first.click()
    page.locator(".numbers summary").click()
    assert violations(page) == [], "a stack and the details open"
    page.locator(".stack:visible").first.click()
    for key in ("ArrowRight", "4", "p", "ArrowRight", "x", "a"):
        page.keyboard.press(key)
    settle(page)
    assert violations(page) == [], "choices made, all shown"
    for opening, waiting in (("?", "#help[open]"), ("f", "#filter-menu:popover-open"), ("Enter", ".viewer-panel h2")):
        if opening == "Enter":
            page.locator(".card:visible .frame").first.focus()
        page.keyboard.press(opening)
        page.locator(waiting).wait_for()
        assert violations(page) == [], waiting
        page.keyboard.press("Escape")
    page.locator(".pswp").wait_for(state="detached")
    page.keyboard.press("c")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("c")
    page.keyboard.press("g")
    page.locator("#compare[open]").wait_for()
    assert violations(page) == [], "side by side"
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    settle(page)
    assert violations(page) == [], "versions"
    for _ in range(3):
        page.keyboard.press("Control+z")


def test_the_pages_fit_from_a_phone_to_a_wall(page: Page, folder: str):
    for name in PAGES:
        page.goto(folder + name)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow(page) <= 0, (name, width)
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{folder}toy/index.html")
    page.evaluate("window.scrollTo({top: 1500, behavior: 'instant'})")
    box = page.locator(".references").bounding_box()
    assert 0 <= box["y"] < 60 and box["height"] < 120  # the references stay in sight


def test_hostile_texts_neither_run_nor_break_the_layout(page: Page, tmp_path: Path):
    """Each as a brief, a prompt, a solver, a reason; the ones of `hostile_workspace` also as name, caption, owner, license."""
    assert len(MANY) >= 50
    workspace = make_workspace(tmp_path / "many")
    texts = tuple(f"<toy> {text}".encode("utf-8", "ignore").decode() for text in MANY)
    add_candidates(workspace, prompts=texts, size=16, count=2)
    build_page(workspace, read_manifest(workspace, "toy"), small_params(best=1))
    build_index(workspace, small_params(), ["toy"])
    addresses = [workspace.galleries / name for name in ("index.html", "toy/index.html")]
    for number, text in enumerate(MANY[:4]):
        hostile, manifest = hostile_workspace(tmp_path / str(number), text)
        build_page(hostile, manifest, small_params())
        build_index(hostile, small_params(), ["toy"])
        addresses += [hostile.galleries / name for name in PAGES]
    for path in addresses:
        page.goto(path.as_uri())
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            assert overflow(page) <= 0, (path, width)
        if path.parent.name == "toy":
            assert page.evaluate("Math.max(...[...document.querySelectorAll('.card')].map(c => c.getBoundingClientRect().height))") < 1600
            page.locator(".card:visible .frame").first.click()
            page.locator(".viewer-panel h2").wait_for()
            assert page.locator("body :is(iframe, object, base, form:not([method=dialog])), [onload], [onerror], [onfocus]").count() == 0
            page.keyboard.press("Escape")
            until(page, "!history.state?.layer")  # it closes by going back, which would end the way to the next page
        assert page.evaluate(MARK.partition("=")[0]) is None
