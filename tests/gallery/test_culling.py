"""Keys, stacks and the browser's Back: that nothing happens to a picture that nobody looks at, and that nobody loses the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.gallery.screenshots import until
from tests.gallery.small_gallery import COUNT, add_candidates, make_workspace, small_params
from tests.stages.one import build_page
from ti_pipeline.concepts.manifest import read_manifest


@pytest.fixture
def toy(page: Page, folder: str) -> Iterator[Page]:
    page.goto(f"{folder}toy/index.html")
    yield page


def card(page: Page, place: int = 0):
    return page.locator(".card:visible").nth(place)


def decided(page: Page) -> list[int]:
    """Positions of the visible cards that are picked or rejected."""
    return page.evaluate("[...document.querySelectorAll('.card')].filter(c => c.checkVisibility())"
                         ".flatMap((c, k) => c.matches('.picked, .rejected') ? [k] : [])")  # fmt: skip


def test_a_key_without_a_picture_in_focus_does_nothing(toy: Page):
    for key in ("x", "p", "5", "c", "u"):
        toy.keyboard.press(key)
        expect(toy.locator(".toast")).to_have_text("Go to a picture first, with the arrow keys or a click.")
    assert decided(toy) == [] and toy.locator(".lit").count() == 0
    expect(toy.locator("#compare-button")).to_be_disabled()
    card(toy, 1).locator(".frame").focus()
    for menu in ("#filter-button", "#take-button"):
        toy.locator(menu).click()
        toy.keyboard.press("x")
        toy.keyboard.press("a")
        assert decided(toy) == [] and toy.locator("html.all").count() == 0
        toy.keyboard.press("Escape")


def test_a_picture_out_of_sight_comes_into_sight_first(toy: Page):
    toy.set_viewport_size({"width": 1280, "height": 500})
    card(toy).locator(".frame").focus()
    toy.evaluate("scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
    toy.keyboard.press("x")
    assert decided(toy) == []
    expect(card(toy)).to_be_in_viewport(ratio=0.5)
    toy.keyboard.press("x")
    assert decided(toy) == [0]


def test_a_decision_goes_on_to_the_next_that_is_not_decided(toy: Page):
    card(toy, 1).locator("[data-do=reject]").click()
    card(toy, 0).locator(".frame").focus()
    toy.keyboard.press("p")
    expect(card(toy, 2).locator(".frame")).to_be_focused()  # past the one that is rejected
    toy.keyboard.press("x")
    expect(card(toy, 3).locator(".frame")).to_be_focused()
    assert decided(toy) == [0, 1, 2]


def test_with_the_filter_not_decided_pick_then_reject_are_two_pictures(toy: Page):
    first, second = (card(toy, k).get_attribute("data-id") for k in (0, 1))
    toy.locator("#filter-button").click()
    toy.get_by_label("Not decided").check()
    toy.keyboard.press("Escape")
    card(toy).locator(".frame").focus()
    toy.keyboard.press("p")
    toy.keyboard.press("x")
    expect(toy.locator(f"#p-{first}")).to_contain_class("picked")
    expect(toy.locator(f"#p-{first}")).not_to_contain_class("rejected")
    expect(toy.locator(f"#p-{second}")).to_contain_class("rejected")
    expect(card(toy).locator(".frame")).to_be_focused()


def test_a_picture_that_the_filter_takes_away_leaves_the_focus_to_its_neighbour(toy: Page):
    for place in (0, 1, 2):
        card(toy, place).locator("[data-stars='5']").click()
    toy.locator("#filter-button").click()
    toy.get_by_label("5", exact=True).check()
    toy.keyboard.press("Escape")
    card(toy, 1).locator(".frame").focus()
    last = card(toy, 2).get_attribute("data-id")
    toy.keyboard.press("2")
    expect(toy.locator(f"#p-{last} .frame")).to_be_focused()


def test_the_first_arrow_key_after_tab_and_after_a_click_moves(toy: Page):
    card(toy).locator(".frame").focus()
    toy.keyboard.press("ArrowRight")
    expect(card(toy, 1).locator(".frame")).to_be_focused()
    card(toy, 0).locator("[data-do=pick]").click()
    toy.keyboard.press("ArrowRight")
    expect(card(toy, 1).locator(".frame")).to_be_focused()
    card(toy, 2).locator(".why").click()
    toy.keyboard.press("ArrowRight")
    expect(card(toy, 3).locator(".frame")).to_be_focused()


def test_in_the_viewer_a_decision_turns_the_page(toy: Page):
    card(toy).locator(".frame").click()
    toy.locator(".viewer-panel h2", has_text=f"1 of {COUNT}").wait_for()
    toy.keyboard.press("p")
    expect(toy.locator(".viewer-panel h2")).to_have_text(f"2 of {COUNT}")
    toy.keyboard.press("Escape")
    toy.locator(".pswp").wait_for(state="detached")
    assert decided(toy) == [0]


def test_almost_equal_pictures_are_a_stack_that_opens(toy: Page):
    stack = toy.locator(".stack:visible").first
    expect(stack).to_have_text("1 + 1 alike")
    lead = toy.locator(f"#{toy.locator('.card.stacked:visible').first.get_attribute('id')}")
    shown = toy.locator(".card:visible").count()
    number = toy.evaluate("[...document.querySelectorAll('.card')].filter(c => c.checkVisibility()).findIndex(c => c.matches('.stacked'))")
    stack.click()
    expect(toy.locator(".card:visible")).to_have_count(shown + 1)
    expect(card(toy, number + 1).locator(".why")).to_contain_text("Almost the same picture as no.")
    assert card(toy, number + 1).locator(".frame img").evaluate("i => getComputedStyle(i).opacity") == "1"
    lead.locator(".frame").focus()
    toy.keyboard.press("ArrowRight")
    expect(card(toy, number + 1).locator(".frame")).to_be_focused()
    toy.keyboard.press("p")
    toy.locator(".card:visible", has_text="Almost the same").locator(".frame").focus()
    toy.keyboard.press("o")
    expect(toy.locator(".card:visible")).to_have_count(shown)
    expect(lead.locator(".frame")).to_be_focused()
    expect(stack).to_have_text("1 + 1 alike, 1 picked")
    toy.keyboard.press("a")
    expect(toy.locator(".card:visible")).to_have_count(2 * COUNT)
    expect(toy.locator(".stack:visible")).to_have_count(0)
    places = toy.locator("#brief-0 .card .rank").all_text_contents()
    assert places == [str(n + 1) for n in range(COUNT)]


def test_back_closes_what_covers_the_page_and_only_then_leaves_it(chromium: Browser, folder: str):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{folder}index.html")
    page.locator("[data-concept=toy] a").tap()
    page.locator(".card .choose").first.wait_for()
    for opened, opens in ((".pswp", ".card .frame"), (".pswp", ".references .frame"), ("#help[open]", "#help-button")):
        page.locator(opens).first.tap()
        page.locator(opened).wait_for()
        page.go_back()
        page.locator(opened).wait_for(state="detached" if opened == ".pswp" else "hidden")
        expect(page.locator("h1")).to_have_text("<toy>")
    page.locator(".card .frame").first.tap()
    page.locator(".pswp__button--close").tap()
    page.locator(".pswp").wait_for(state="detached")
    until(page, "history.state === null")
    page.go_back()
    expect(page.locator("h1")).to_have_text("Learnt concepts")
    context.close()


def test_many_references_leave_room_for_what_is_below_them(page: Page, tmp_path: Path):
    workspace = make_workspace(tmp_path, names=tuple(f"{n:02d}.png" for n in range(24)))
    add_candidates(workspace, prompts=("a <toy>",))
    build_page(workspace, read_manifest(workspace, "toy"), small_params())
    page.goto((workspace.galleries / "toy" / "index.html").as_uri())
    for height in (700, 900, 1200):
        page.set_viewport_size({"width": 1280, "height": height})
        page.locator(".word .button").first.scroll_into_view_if_needed()
        assert page.evaluate("""() => { const box = document.querySelector('.word .button').getBoundingClientRect();
            return document.elementFromPoint(box.left + 20, box.top + box.height / 2).closest('.button') !== null; }""")


def test_the_bar_is_the_way_from_the_plain_word_to_the_photos(toy: Page):
    """The plain word draws .6 and the photos are .8 alike: 100 is .8, whatever the other candidates of the brief are like."""
    seen = toy.evaluate("""[...document.querySelectorAll('.card')].map(c => [JSON.parse(document.getElementById('data').textContent)
        .pictures[c.dataset.id].likeness, Number(c.querySelector('.measures .number').textContent.replace('\N{MINUS SIGN}', '-')),
        parseFloat(c.querySelector('.fill').getAttribute('width'))])""")
    for likeness, number, width in seen:
        assert abs(number - (likeness - 0.6) / 0.2 * 100) <= 0.6
        assert abs(width - min(max(number, 0), 100)) <= 0.6
    card(toy).locator(".frame").click()
    details = toy.locator(".viewer-panel .details")
    expect(details.get_by_text("CLIP cosine").first).to_be_hidden()
    details.locator("summary").click()
    expect(details).to_contain_text(f"{seen[0][0]:.3f}")
    toy.keyboard.press("Escape")
