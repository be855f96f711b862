"""Choices that stay where they belong: between tabs, galleries, files and a server that is away or refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, expect

from tests.gallery.screenshots import until
from tests.gallery.server import Server
from ti_pipeline.gallery.identity import write_identity
from ti_pipeline.workspace import Workspace


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", accept_downloads=True)
    yield context
    context.close()


def opened(context: BrowserContext, address: str) -> Page:
    page = context.new_page()
    page.goto(f"{address}toy/index.html")
    page.locator(".card .choose").first.wait_for()
    return page


def card(page: Page, place: int = 0):
    return page.locator(".card:visible").nth(place)


def test_two_tabs_see_each_other_and_undo_leaves_the_others_choice(context: BrowserContext, folder: str):
    one, two = opened(context, folder), opened(context, folder)
    card(one).locator("[data-do=pick]").click()
    expect(card(two)).to_contain_class("picked")
    card(two).locator("[data-do=reject]").click()
    expect(card(one)).to_contain_class("rejected")
    one.locator("#undo").click()
    expect(one.locator(".toast")).to_have_text("Left as it is: it was changed elsewhere since.")
    expect(card(one)).to_contain_class("rejected")
    two.locator("#undo").click()
    expect(card(one)).to_contain_class("picked")


def test_undo_and_redo_go_all_the_way(context: BrowserContext, folder: str):
    page = opened(context, folder)
    for clicked in ("[data-do=pick]", "[data-stars='3']", "[data-do=reject]", "[data-stars='5']"):
        card(page).locator(clicked).click()
    for _ in range(4):
        page.keyboard.press("Control+z")
    expect(card(page)).not_to_contain_class("picked")
    assert card(page).locator(".lit").count() == 0
    for _ in range(4):
        page.keyboard.press("Control+Shift+z")
    expect(card(page)).to_contain_class("rejected")
    expect(card(page).locator(".lit")).to_have_count(5)
    page.keyboard.press("Control+z")
    expect(card(page).locator(".lit")).to_have_count(3)


def test_an_import_asks_before_it_changes_what_i_have_chosen(context: BrowserContext, folder: str, tmp_path: Path):
    page = opened(context, folder)
    ids = [card(page, k).get_attribute("data-id") for k in range(3)]
    card(page, 0).locator("[data-do=pick]").click()
    rows = [{"concept": "toy", "picture": ids[k], "flag": "reject", "stars": 0} for k in (0, 1)]
    file = tmp_path / "choices.json"
    file.write_text(json.dumps({"format": "ti-pipeline choices", "choices": rows}))
    dialog = page.locator("#import-dialog")
    answers = (("Cancel", "picked", ""), ("Keep mine", "picked", "rejected"), ("Use the file’s", "rejected", "rejected"))
    for answer, first, second in answers:
        page.locator("#import-file").set_input_files(file)
        expect(dialog).to_contain_text("1 picture you have chosen otherwise")
        dialog.get_by_role("button", name=answer).click()
        until(page, "history.state === null")
        for place, state in ((0, first), (1, second)):
            if state:
                expect(card(page, place)).to_contain_class(state)
            else:
                expect(card(page, place)).not_to_contain_class("rejected")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[null]", "This is not a file of choices that a gallery exported."),
        ("null", "This is not a file of choices that a gallery exported."),
        ("{", "This is not a file of choices: it is no JSON."),
        (
            '{"format": "ti-pipeline choices", "choices": [null, 3, {"picture": null}]}',
            "Nothing imported: there are no choices in this file.",
        ),
        (
            '{"format": "ti-pipeline choices", "choices": [{"concept": "toy", "picture": "0123456789abcdef", "flag": "pick", "stars": 0}]}',
            "Nothing imported: these choices are for pictures that this page does not show.",
        ),
    ],
)
def test_a_file_that_is_none_is_told_in_a_sentence(context: BrowserContext, folder: str, tmp_path: Path, content: str, said: str):
    page = opened(context, folder)
    (tmp_path / "x.json").write_text(content)
    page.locator("#import-file").set_input_files(tmp_path / "x.json")
    expect(page.locator(".toast")).to_have_text(said)


def test_one_gallery_knows_nothing_of_anothers_choices(context: BrowserContext, made: Path, tmp_path: Path):
    """Two workspaces with the same pictures, shown one after the other at one address."""
    other = shutil.copytree(made / "artifacts", tmp_path / "other" / "artifacts").parent
    (other / "artifacts" / "galleries" / "_site" / "identity.js").unlink()
    assert write_identity(Workspace.at(other, "concepts")) != write_identity(Workspace.at(made, "concepts"))
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'a.sqlite'}") as server:
        page = opened(context, server.url)
        card(page).locator("[data-do=pick]").click()
        until(page, "document.getElementById('saved').textContent === 'Saved'")
        page.close()
        port = server.port
    foreign = Server(other, "--choices", f"sqlite:///{tmp_path / 'b.sqlite'}")
    foreign.port = port
    with foreign:
        page = opened(context, foreign.url)
        page.evaluate("""localStorage.setItem('ti-gallery/choices', JSON.stringify({toy: {
            [document.querySelector('.card').dataset.id]: {flag: 'pick', stars: 0, at: '2026', ticket: 'x'}}}))""")
        page.reload()
        page.locator(".card .choose").first.wait_for()
        card(page, 1).locator("[data-do=reject]").click()
        until(page, "document.getElementById('saved').textContent === 'Saved'")
        assert [row["flag"] for row in httpx.get(f"{foreign.url}api/choices").json()["choices"]] == ["reject"]
        assert page.locator(".card.picked").count() == 0
        page.locator("#take-button").click()
        page.get_by_role("button", name="Import earlier choices").click()  # only when asked
        expect(card(page, 0)).to_contain_class("picked")


def test_the_identity_outlives_the_galleries_and_comes_along_with_them(tmp_path: Path):
    here, there = Workspace.at(tmp_path / "here", "c"), Workspace.at(tmp_path / "there", "c")
    identity = write_identity(here)
    shutil.copytree(here.galleries, there.galleries)
    assert write_identity(there) == identity
    shutil.rmtree(here.artifacts)
    assert write_identity(here) == identity
    assert write_identity(Workspace.at(tmp_path / "third", "c")) != identity


def test_a_refused_batch_is_not_sent_again_and_again(context: BrowserContext, made: Path, tmp_path: Path):
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'choices.sqlite'}") as server:
        page = opened(context, server.url)
        sent = []

        def refuse(route: Route) -> None:
            if route.request.method != "POST":
                route.fallback()
                return
            sent.append(json.loads(route.request.post_data)["choices"])
            route.fulfill(status=422, json={"detail": "This picture is not known here."})

        page.route("**/api/choices*", refuse)
        card(page).locator("[data-do=pick]").click()
        expect(page.locator("#saved")).to_have_text("1 not saved: This picture is not known here.")
        with page.expect_response("**/api/choices?since=*"), page.expect_response("**/api/choices?since=*"):
            pass
        assert len(sent) == 1
        expect(card(page)).to_contain_class("picked")
        page.unroute("**/api/choices*")
        card(page, 1).locator("[data-do=reject]").click()
        expect(page.locator("#saved")).to_have_text("Saved")
        assert len(httpx.get(f"{server.url}api/choices").json()["choices"]) == 2


def test_a_name_given_later_reaches_earlier_picks(context: BrowserContext, chromium: Browser, made: Path, tmp_path: Path):
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'choices.sqlite'}") as server:
        page, other = opened(context, server.url), opened(chromium.new_context(), server.url)
        card(page).locator("[data-do=pick]").click()
        expect(other.locator(".others")).to_have_text("Someone picked")
        page.locator("#people-button").click()
        page.locator("#my-name").fill("Anna")
        page.keyboard.press("Tab")
        expect(other.locator(".others")).to_have_text("Anna picked")
        page.keyboard.press("Escape")
        page.keyboard.press("Control+z")
        expect(other.locator(".others")).to_have_count(0)
        other.context.close()


def test_undo_of_what_another_device_has_changed_since_is_refused_by_the_server(
    context: BrowserContext, chromium: Browser, made: Path, tmp_path: Path
):
    """The same person on two devices; the first hears nothing of the second until it undoes."""
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'choices.sqlite'}") as server:
        one = opened(context, server.url)
        me = one.evaluate("JSON.parse(localStorage.getItem(`ti-gallery/${document.documentElement.dataset.gallery}/me`))")
        card(one).locator("[data-do=pick]").click()
        until(one, "document.getElementById('saved').textContent === 'Saved'")
        one.route("**/api/choices?since=*", lambda route: route.abort())
        row = {
            "concept": "toy",
            "picture": card(one).get_attribute("data-id"),
            "flag": "reject",
            "stars": 2,
            "at": "2026-01-01T00:00:00.000Z",
        }
        sent = httpx.post(f"{server.url}api/choices", json={"choices": [row | {"ticket": "elsewhere", "person": me["person"], "name": ""}]})
        assert sent.status_code == 200
        one.locator("#undo").click()
        expect(one.locator(".toast")).to_have_text("Left as it is: it was changed elsewhere since.")
        expect(card(one)).to_contain_class("rejected")
        expect(card(one).locator(".lit")).to_have_count(2)


def test_downloads_work_again_when_the_server_is_back(context: BrowserContext, made: Path, tmp_path: Path):
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'choices.sqlite'}") as server:
        page = opened(context, server.url)
        card(page).locator("[data-do=pick]").click()
        until(page, "document.getElementById('saved').textContent === 'Saved'")
        server.kill()
        page.locator("#take-button").click()
        for wanted in ("zip", "sheet-pdf"):
            page.locator(f"[data-do={wanted}]").click()
            expect(page.locator(".toast")).to_contain_text("the server does not answer")
        server.start()
        for wanted in ("zip", "sheet-pdf"):
            with page.expect_download() as waiting:
                page.locator(f"[data-do={wanted}]").click()
            assert waiting.value.path()


def test_back_to_the_overview_applies_the_search_that_it_shows(context: BrowserContext, server: Server):
    page = context.new_page()
    page.goto(f"{server.url}index.html")
    page.locator("#search").fill("sketch")
    expect(page.locator(".overview > li:visible")).to_have_count(1)
    page.locator(".overview > li:visible a").click()
    page.locator(".card .choose").first.wait_for()
    page.go_back()
    expect(page.locator("h1")).to_have_text("Learnt concepts")
    assert page.locator("#search").input_value() == "sketch"
    expect(page.locator(".overview > li:visible")).to_have_count(1)


def test_an_export_hands_out_no_secret(context: BrowserContext, made: Path, tmp_path: Path):
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'choices.sqlite'}") as server:
        page = opened(context, server.url)
        card(page).locator("[data-do=pick]").click()
        until(page, "document.getElementById('saved').textContent === 'Saved'")
        person = page.evaluate("JSON.parse(localStorage.getItem(`ti-gallery/${document.documentElement.dataset.gallery}/me`)).person")
        page.locator("#take-button").click()
        with page.expect_download() as waiting:
            page.locator("[data-do=export]").click()
        text = Path(waiting.value.path()).read_text()
        assert person not in text
        assert json.loads(text)["choices"][0]["person"] == httpx.get(f"{server.url}api/choices").json()["choices"][0]["person"]
