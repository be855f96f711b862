"""A concept's page as a person uses it, by mouse, keyboard and touch, from a folder and from the server."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Download, Page, expect

from tests.gallery.screenshots import until
from tests.gallery.server import Server
from tests.gallery.small_gallery import COUNT
from ti_pipeline.choices.files import gather, read_exported
from ti_pipeline.concepts.manifest import read_manifest
from ti_pipeline.files import read_table
from ti_pipeline.words.export import Export, export_of
from ti_pipeline.words.tools import TOOLS
from ti_pipeline.workspace import Workspace

UNSENT = "localStorage.getItem(`ti-gallery/${document.documentElement.dataset.gallery}/unsent`)"


@pytest.fixture
def toy(page: Page, address: str) -> Iterator[Page]:
    page.goto(f"{address}toy/index.html")
    yield page
    # the next test counts everyone's picks: what this one has undone must have reached the server
    until(page, "Object.keys(localStorage).every(key => !key.includes('/waiting/'))")


def card(page: Page, place: int = 0):
    return page.locator(".card:visible").nth(place)


def copied(page: Page, text: str) -> None:
    """Wait until the clipboard begins with `text`."""
    until(page, f"navigator.clipboard.readText().then(text => text.startsWith({json.dumps(text)}))")


def downloaded(page: Page, *clicks: str) -> tuple[Download, bytes]:
    for click in clicks[:-1]:
        page.locator(click).click()
    with page.expect_download() as waiting:
        page.locator(clicks[-1]).click()
    return waiting.value, Path(waiting.value.path()).read_bytes()


def test_pick_reject_stars_and_undo_by_keyboard(toy: Page):
    toy.keyboard.press("ArrowRight")
    toy.keyboard.press("4")
    toy.keyboard.press("p")
    expect(toy.locator("#counter")).to_have_text("1 picked")
    expect(card(toy).get_by_role("button", name="Pick", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(card(toy).locator(".stars .lit")).to_have_count(4)
    toy.keyboard.press("x")  # the next one has the focus already
    expect(card(toy, 1)).to_contain_class("rejected")
    toy.keyboard.press("ArrowLeft")
    toy.keyboard.press("u")
    expect(card(toy, 1)).not_to_contain_class("rejected")
    toy.keyboard.press("Control+z")
    expect(card(toy, 1)).to_contain_class("rejected")
    toy.locator("#undo").click()
    toy.locator("#undo").click()
    toy.locator("#undo").click()
    expect(toy.locator("#counter")).to_have_text("0 picked")
    expect(toy.locator("#undo")).to_be_disabled()
    toy.keyboard.press("Control+Shift+z")
    toy.keyboard.press("Control+Shift+z")
    expect(toy.locator("#counter")).to_have_text("1 picked")
    toy.keyboard.press("Control+z")
    toy.keyboard.press("Control+z")
    expect(card(toy).locator(".stars .lit")).to_have_count(0)


def test_choices_by_touch_stay_after_a_reload_and_in_the_overview(chromium: Browser, folder: str):
    context = chromium.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(f"{folder}toy/index.html")
    card(page).get_by_role("button", name="Pick", exact=True).tap()
    card(page).get_by_role("button", name="3 stars").tap()
    card(page, 1).get_by_role("button", name="Reject").tap()
    size = card(page).get_by_role("button", name="5 stars").bounding_box()
    assert size["width"] >= 24 and size["height"] >= 24  # WCAG 2.2, 2.5.8
    page.reload()
    until(page, "document.querySelectorAll('.card.picked').length == 1 && document.querySelectorAll('.card.rejected').length == 1")
    page.goto(f"{folder}index.html")
    expect(page.locator("[data-concept=toy] .badge")).to_have_text("1 picked")
    page.locator("#state").select_option("chosen")
    expect(page.locator(".overview > li:visible")).to_have_count(1)
    context.close()


def test_best_and_all_briefs_and_stream_and_size(toy: Page):
    expect(toy.locator(".card:visible")).to_have_count(8)
    expect(toy.locator(".brief .count").first).to_have_text(f"4 best of {COUNT}")
    toy.keyboard.press("a")
    expect(toy.locator(".card:visible")).to_have_count(2 * COUNT)
    toy.locator("[data-show=best]").click()
    expect(toy.locator(".card:visible")).to_have_count(8)
    toy.keyboard.press("s")
    expect(toy.locator("#stream .card:visible .rank")).to_have_text(["1", "1", "2", "2", "3", "3", "4", "4"])
    toy.locator("[data-view=rows]").click()
    expect(toy.locator("#brief-0 .card:visible .rank")).to_have_text(["1", "2", "3", "4"])
    before = card(toy).bounding_box()["width"]
    toy.locator("#size").fill("400")
    assert card(toy).bounding_box()["width"] > before
    toy.keyboard.press("-")
    expect(toy.locator("#size")).to_have_value("376")


def test_filter_by_flag_and_stars(toy: Page):
    card(toy, 0).locator("[data-do=pick]").click()
    card(toy, 1).locator("[data-stars='5']").click()
    toy.locator("#filter-button").click()
    toy.get_by_label("Picked", exact=True).check()
    expect(toy.locator(".card:visible")).to_have_count(1)
    expect(toy.locator("#filter-name")).to_have_text("Picked")
    toy.get_by_label("Everything", exact=True).check()
    toy.get_by_label("4 and more").check()
    expect(toy.locator(".card:visible")).to_have_count(1)
    toy.get_by_label("Rejected", exact=True).check()
    expect(toy.locator(".card:visible")).to_have_count(0)
    toy.keyboard.press("Escape")
    toy.get_by_role("button", name="Show everything").click()
    expect(toy.locator(".card:visible")).to_have_count(8)
    toy.keyboard.press("Control+z")
    toy.keyboard.press("Control+z")


def test_the_viewer_zooms_turns_pages_chooses_and_gives_the_recipe(toy: Page):
    card(toy, 1).locator(".frame").click()
    panel = toy.locator(".viewer-panel")
    expect(panel.locator("h2")).to_have_text(f"2 of {COUNT}")
    expect(toy.locator(".viewer-panel .strip img")).to_have_count(3)  # the references stay in sight
    toy.keyboard.press("ArrowRight")
    expect(panel.locator("h2")).to_have_text(f"3 of {COUNT}")
    width = "document.querySelector('.pswp__item[aria-hidden=false] .pswp__img:not(.pswp__img--placeholder)').getBoundingClientRect().width"
    until(toy, f"{width} > 100")
    fitted = toy.evaluate(width)
    toy.mouse.move(400, 400)
    toy.mouse.wheel(0, -400)
    until(toy, f"{width} > {1.2 * fitted}")
    expect(panel.locator(".recipe div", has_text="CFG scale").locator("dd")).to_have_text("5")
    panel.get_by_role("button", name="Copy seed").click()
    copied(toy, panel.locator(".recipe div", has_text="Seed").locator("dd").text_content().strip())
    panel.get_by_role("button", name="Copy prompt").click()
    copied(toy, "a photo of a <toy>")
    panel.get_by_role("button", name="Copy recipe").click()
    copied(toy, "a photo of a <toy>\nSteps: 25, Sampler: ddim, CFG scale: 5, Seed: 100")
    assert re.search(r"Seed: 100\d, Size: 64x64", toy.evaluate("navigator.clipboard.readText()"))
    panel.locator("[data-do=pick]").click()
    expect(panel.locator("[data-do=pick]")).to_have_attribute("aria-pressed", "true")
    toy.keyboard.press("2")
    expect(panel.locator(".lit")).to_have_count(2)
    file, content = downloaded(toy, ".viewer-panel [data-do=download]")
    assert file.suggested_filename.endswith(".png") and Image.open(io.BytesIO(content)).size == (64, 64)
    toy.keyboard.press("Escape")
    toy.locator(".pswp").wait_for(state="detached")
    expect(card(toy, 2)).to_contain_class("picked")
    expect(card(toy, 2).locator(".frame")).to_be_focused()
    toy.keyboard.press("Control+z")
    toy.keyboard.press("Control+z")
    toy.locator(".references .frame").first.click()
    toy.locator(".pswp[aria-label=References]").wait_for()
    toy.keyboard.press("Escape")


def test_two_to_four_side_by_side_with_the_reference(toy: Page):
    toy.keyboard.press("ArrowRight")
    toy.keyboard.press("c")
    card(toy, 1).hover()
    card(toy, 1).locator(".tick").click()
    expect(toy.locator("#compare-count")).to_have_text("2")
    toy.keyboard.press("g")
    sides = toy.locator("#compare .side")
    expect(sides.locator("strong")).to_have_text(["Reference", f"1 of {COUNT}", f"2 of {COUNT}"])
    first = sides.first.locator("img").get_attribute("src")
    toy.get_by_role("button", name="Another reference").click()
    expect(sides.first.locator("img")).not_to_have_attribute("src", first)
    toy.mouse.move(640, 400)
    toy.mouse.wheel(0, -400)
    scales = "[...document.querySelectorAll('#compare .pane img')].map(i => new DOMMatrix(getComputedStyle(i).transform).a)"
    until(toy, f"{scales}.every(a => a > 2)")
    toy.mouse.down()
    toy.mouse.move(700, 430)
    toy.mouse.up()
    moves = "[...document.querySelectorAll('#compare .pane img')].map(i => i.style.transform)"
    until(toy, f"new Set({moves}).size === 1 && !{moves}[0].includes('translate(0%')")
    sides.nth(2).locator("[data-do=reject]").click()
    toy.keyboard.press("Escape")
    expect(card(toy, 1)).to_contain_class("rejected")
    toy.keyboard.press("Control+z")


def test_an_earlier_version_stands_left_and_the_new_one_right(toy: Page):
    toy.locator("[data-view=versus]").click()
    pairs = toy.locator(".pair:visible")
    expect(pairs.first).to_be_visible()
    expect(toy.locator(".versus h2")).to_have_text("last week and now")
    versions = pairs.first.locator(".when").all_text_contents()
    assert versions[1].startswith("now · ") and versions[0] not in versions[1]
    pairs.first.get_by_role("button").click()
    expect(toy.locator("#compare strong")).to_have_text(["Reference", re.compile("^last week"), re.compile("^now")])
    toy.keyboard.press("Escape")
    toy.keyboard.press("d")
    expect(toy.locator(".card:visible")).to_have_count(8)


def test_picks_are_taken_away_as_zip_and_contact_sheets(toy: Page, made: Path):
    card(toy, 0).locator("[data-do=pick]").click()
    card(toy, 4).locator("[data-do=pick]").click()
    expect(card(toy, 0).locator(".why")).not_to_be_empty()
    file, content = downloaded(toy, "#take-button", "[data-do=zip]")
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert file.suggested_filename == "toy-2.zip" and len(names) == 4 and {"recipes.txt", "ti-toy.safetensors"} < set(names)
    packed = zipfile.ZipFile(io.BytesIO(content))
    word = exported(made).files(TOOLS["diffusers"])
    assert packed.read("ti-toy.safetensors") == word["ti-toy.safetensors"]
    originals = {path.read_bytes() for path in (made / "artifacts" / "candidates" / "toy").glob("*.png")}
    assert all(packed.read(name) in originals for name in names if name.endswith(".png"))
    assert "Seed: 100" in packed.read("recipes.txt").decode()
    _, content = downloaded(toy, "[data-do=sheet-png]")
    sheet = Image.open(io.BytesIO(content)).convert("RGB")
    assert sheet.width > 1000 and len(set(sheet.resize((40, 40)).get_flattened_data())) > 20
    _, content = downloaded(toy, "[data-do=sheet-pdf]")
    assert content.startswith(b"%PDF-") and content.count(b"/Subtype /Image") == 1
    file, content = downloaded(toy, "#take-menu [data-do=word]")
    assert (file.suggested_filename, content) == ("ti-toy.safetensors", word["ti-toy.safetensors"])
    toy.get_by_label("Everything shown").check()
    file, content = downloaded(toy, "[data-do=zip]")
    assert file.suggested_filename == "toy-8.zip"
    toy.keyboard.press("Escape")
    toy.locator("#undo").click()
    toy.locator("#undo").click()


def exported(made: Path) -> Export:
    workspace = Workspace.at(made, "concepts")
    return export_of(workspace, read_manifest(workspace, "toy"), "ti-toy")


def test_each_tool_is_given_the_files_that_export_writes_and_its_line(toy: Page, made: Path):
    word = exported(made)
    assert [tool.name for tool in word.tools] == ["diffusers", "sd-concepts"]
    for tool, title in zip(word.tools, ("diffusers", "sd-concepts-library"), strict=True):
        toy.get_by_role("radio", name=title).check()
        expect(toy.locator(".panel:visible")).to_have_count(1)
        toy.locator(".panel:visible .copy").click()
        copied(toy, word.line(tool))
        beside = [f".panel:visible .note [download='{name}']" for name in word.files(tool) if not tool.repository and name != word.file]
        taken = [downloaded(toy, click) for click in (".panel:visible .button", *beside)]
        files = {file.suggested_filename: content for file, content in taken}
        if tool.repository:
            packed = zipfile.ZipFile(io.BytesIO(files.pop("ti-toy.zip")))
            files |= {name: packed.read(name) for name in packed.namelist()}
        assert files == word.files(tool)


def test_the_tool_is_the_same_on_every_page(toy: Page):
    toy.get_by_role("radio", name="sd-concepts-library").check()
    toy.goto(toy.url.replace("/toy/", "/ink/"))
    expect(toy.get_by_role("radio", name="sd-concepts-library")).to_be_checked()
    toy.locator("#take-button").click()
    expect(toy.locator("#take-tool")).to_have_text("sd-concepts-library")
    file, content = downloaded(toy, "#take-menu [data-do=word]")
    assert file.suggested_filename == "ti-ink.zip" and "ti-ink/README.md" in zipfile.ZipFile(io.BytesIO(content)).namelist()


def test_choices_go_out_and_in_as_a_file_and_back_to_the_ranking(toy: Page, chromium: Browser, folder: str, made: Path, tmp_path: Path):
    card(toy, 2).locator("[data-do=pick]").click()
    card(toy, 3).locator("[data-stars='2']").click()
    file, content = downloaded(toy, "#take-button", "[data-do=export]")
    saved = tmp_path / file.suggested_filename
    saved.write_bytes(content)
    chosen = {(c.picture, c.flag, c.stars) for c in read_exported(saved).choices}
    assert len(chosen) == 2 and {flag for _, flag, _ in chosen} == {"pick", ""}
    digests = {row["digest"][:16] for row in read_table(Workspace.at(made, "concepts").ranking("toy"))}
    assert {picture for picture, _, _ in chosen} <= digests
    assert len(gather(Workspace.at(made, "concepts"), str(saved))[0]) == 2
    other = chromium.new_context()
    page = other.new_page()
    page.goto(f"{folder}toy/index.html")
    page.locator("#import-file").set_input_files(saved)
    until(page, "document.querySelectorAll('.card.picked').length == 1")
    expect(page.locator(".toast")).to_have_text("2 choices imported")
    (tmp_path / "wrong.json").write_text(json.dumps({"choices": 3}))
    page.locator("#import-file").set_input_files(tmp_path / "wrong.json")
    until(page, "document.querySelector('.toast').textContent.startsWith('This is not a file of choices')")
    other.close()
    toy.keyboard.press("Escape")
    toy.locator("#undo").click()
    toy.locator("#undo").click()


def test_help_under_the_question_mark_and_single_keys_can_be_switched_off(toy: Page):
    toy.keyboard.press("?")
    expect(toy.locator("#help")).to_be_visible()
    expect(toy.locator("#help")).to_contain_text("side by side")
    toy.get_by_label("Keys without Ctrl").uncheck()  # WCAG 2.1.4
    toy.keyboard.press("Escape")
    card(toy).locator(".frame").focus()
    toy.keyboard.press("p")
    expect(toy.locator("#counter")).to_have_text("0 picked")
    toy.locator("#help-button").click()
    toy.get_by_label("Keys without Ctrl").check()


def test_the_overview_searches_sorts_and_filters(page: Page, address: str):
    page.goto(f"{address}index.html")
    shown = page.locator(".overview > li:visible h2")
    expect(shown).to_have_text(["<ink>", "<toy>"])
    page.keyboard.press("/")
    page.keyboard.type("sketch yellow")
    expect(shown).to_have_text(["<toy>"])
    expect(page.locator("#counter")).to_have_text("1 of 2 concepts")
    page.locator("#search").fill("nothing like it")
    page.get_by_role("button", name="Show all").click()
    page.locator("#kind").select_option("style")
    expect(shown).to_have_text(["<ink>"])
    page.locator("#kind").select_option("")
    page.locator("#owner").select_option("Studio Ö")
    expect(shown).to_have_text(["<ink>"])
    page.locator("#owner").select_option("")
    page.locator("#sort").select_option("gain")
    expect(shown).to_have_text(["<toy>", "<ink>"])
    expect(page.locator(".needs")).to_contain_text("broken")
    page.locator(".overview > li:visible a").first.click()
    expect(page.locator("h1")).to_have_text("<toy>")


def test_the_questionnaire_is_answered_blind(page: Page, address: str, made: Path):
    key = json.loads((made / "choices" / "_questionnaire.json").read_text())
    page.goto(f"{address}index.html")
    page.get_by_role("link", name="Help to judge").click()
    for answered in range(len(key)):
        expect(page.locator("#progress")).to_have_js_property("value", answered)  # the next question is there
        expect(page.locator(".places button").first).to_be_visible()
        source = page.content()
        assert not any(setup in source for setup in ("textual inversion", "prompt only", "image only", "last week"))
        buttons = page.locator(".places button")
        for place in range(buttons.count() - 1):
            buttons.nth(place).click()
        expect(page.locator(".places .rank")).to_have_count(buttons.count())
        expect(page.locator("#progress")).to_have_attribute("max", str(len(key)))
        page.get_by_role("button", name="Next").click()
    expect(page.locator("#question")).to_contain_text("Thank you")
    if address.startswith("file:"):
        _, content = downloaded(page, ".button")
        assert {answer["question"] for answer in json.loads(content)["answers"]} == set(key)
    else:
        until(page, f"{UNSENT} === '[]'")
        assert len(gather(Workspace.at(made, "concepts"), None)[1]) == len(key)


def test_an_answer_given_while_the_last_one_is_sent_still_waits(page: Page, server: Server):
    held = []
    page.route("**/api/answers", lambda route: held.append(route))
    page.goto(f"{server.url}_questionnaire/index.html")

    def answer() -> None:
        buttons = page.locator(".places button")
        expect(buttons.first).to_be_visible()
        for place in range(buttons.count() - 1):
            buttons.nth(place).click()
        page.get_by_role("button", name="Next").click()

    def unsent() -> list[str]:
        return [row["ticket"] for row in json.loads(page.evaluate(UNSENT))]

    answer()
    first = unsent()
    expect(page.locator("#progress")).to_have_js_property("value", 1)
    answer()
    second = unsent()[1:]
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    until(page, f"!{UNSENT}.includes('{first[0]}')")
    assert unsent() == second and len(second) == 1
    page.unroute("**/api/answers")
    page.reload()
    until(page, f"{UNSENT} === '[]'")
