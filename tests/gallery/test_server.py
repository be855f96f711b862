"""The server: what it lets through, and that nothing that it answered as kept is ever lost."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.gallery.postgresql import postgresql
from tests.gallery.screenshots import until
from tests.gallery.server import Server
from tests.gallery.small_gallery import ROOT
from ti_pipeline.choices.store import Choice, Store, _tables
from ti_pipeline.errors import ParamsError


def decision(n: int, person: str = "anna", **changes: object) -> dict:
    row = {"concept": "toy", "picture": f"{n:016x}", "person": person, "name": person.title(), "flag": "pick", "stars": 0, "at": "now"}
    return row | {"ticket": f"{person}-{n}"} | changes


def test_it_listens_on_this_machine_only_and_serves_the_pages(server: Server):
    with socket.socket() as elsewhere, pytest.raises(OSError):
        elsewhere.settimeout(2)
        elsewhere.connect((socket.gethostbyname(socket.gethostname()), server.port))
        if elsewhere.getpeername()[0].startswith("127."):
            raise OSError("this machine's name leads to itself")
    page = httpx.get(server.url)
    assert page.status_code == 200 and "script-src 'self'" in page.headers["content-security-policy"]
    assert httpx.get(f"{server.url}toy", follow_redirects=True).url.path == "/toy/"
    assert httpx.get(f"{server.url}toy/page.json").status_code == 404  # nothing but what pages show
    for path in ("%2e%2e/params.yaml", "..%2f..%2fchoices%2f_questionnaire.json", "toy/%2e%2e/%2e%2e/manifests/toy.parquet", "nothing"):
        assert httpx.get(f"{server.url}{path}").status_code == 404, path
    assert httpx.get(server.url, headers={"Host": "evil.example"}).status_code == 400


def test_a_wrong_decision_is_refused_and_another_sites_page_as_well(server: Server):
    for wrong in ({"flag": "love"}, {"stars": 6}, {"picture": "../../x"}, {"concept": "No Slug"}, {"name": "n" * 99}):
        sent = httpx.post(f"{server.url}api/choices", json={"choices": [decision(1) | wrong]})
        assert sent.status_code == 422, wrong
    foreign = httpx.post(f"{server.url}api/choices", json={"choices": []}, headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403


def test_a_secret_is_asked_for_and_let_in(made: Path, chromium: Browser):
    with Server(made, secret="open sesame") as server:
        assert httpx.get(f"{server.url}api/choices").status_code == 401
        assert httpx.get(f"{server.url}toy/word/ti-toy.safetensors").status_code == 401
        assert httpx.get(f"{server.url}api/choices", headers={"Authorization": "Bearer open sesame"}).status_code == 200
        page = chromium.new_page()
        page.goto(f"{server.url}toy/index.html")
        page.locator("input").fill("wrong")
        page.get_by_role("button", name="Enter").click()
        expect(page.locator("[role=alert]")).to_contain_text("That is not the secret")
        page.locator("input").fill("open sesame")
        page.keyboard.press("Enter")
        page.locator(".overview").wait_for()
        cookie = page.context.cookies()[0]
        assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and "sesame" not in cookie["value"]
        page.close()


def test_two_people_at_once_and_the_server_killed_in_the_middle(made: Path, tmp_path: Path):
    """What was answered as kept is there after SIGKILL; what was not is sent again and kept once."""
    url = f"sqlite:///{tmp_path / 'choices.sqlite'}"
    answered: list[dict] = []

    def choose(person: str, server: Server) -> None:
        client = httpx.Client()
        for n in range(40):
            while True:
                try:
                    sent = client.post(f"{server.url}api/choices", json={"choices": [decision(n, person)]}, timeout=5)
                    assert sent.status_code == 200
                    answered.append(decision(n, person))
                    break
                except httpx.HTTPError:
                    time.sleep(0.05)

    with Server(made, "--choices", url) as server:
        people = [threading.Thread(target=choose, args=(person, server)) for person in ("anna", "ben")]
        for person in people:
            person.start()
        while len(answered) < 20:
            time.sleep(0.01)
        server.kill()
        kept = {(c.person, c.picture) for c in Store(url).standing()}
        assert {(row["person"], row["picture"]) for row in answered} <= kept
        server.start()
        for person in people:
            person.join()
        news = httpx.get(f"{server.url}api/choices").json()["choices"]
    assert len(news) == 80 and len({row["ticket"] for row in news}) == 80


def test_two_pages_see_each_others_choices_and_outlive_a_dead_server(made: Path, chromium: Browser, tmp_path: Path):
    with Server(made, "--choices", f"sqlite:///{tmp_path / 'choices.sqlite'}") as server:
        contexts = [chromium.new_context() for _ in range(2)]
        anna, ben = (context.new_page() for context in contexts)
        for page, name in ((anna, "Anna"), (ben, "<b>Ben</b>")):
            page.goto(f"{server.url}toy/index.html")
            page.locator("#people-button").click()
            page.locator("#my-name").fill(name)
            page.keyboard.press("Tab")
            page.keyboard.press("Escape")
        anna.locator(".card:visible [data-do=pick]").first.click()
        until(anna, "document.getElementById('saved').textContent === 'Saved'")
        ben.locator(".card:visible [data-stars='5']").first.click()
        until(ben, "document.querySelector('.others')?.textContent === 'Anna picked'")
        until(anna, "document.querySelector('.others')?.textContent === '<b>Ben</b> ★★★★★'")
        anna.locator("#filter-button").click()
        anna.get_by_label("5", exact=True).check()
        expect(anna.locator(".card:visible")).to_have_count(1)
        anna.get_by_label("Me", exact=True).check()
        expect(anna.locator(".card:visible")).to_have_count(0)
        server.kill()
        ben.locator(".card:visible [data-do=reject]").nth(1).click()
        until(ben, "document.getElementById('saved').textContent.startsWith('1 not saved yet')")
        expect(ben.locator(".card:visible").nth(1)).to_contain_class("pending")
        server.start()
        until(ben, "document.getElementById('saved').textContent === 'Saved'")
        flags = [(row["name"], row["flag"], row["stars"]) for row in httpx.get(f"{server.url}api/choices").json()["choices"]]
        assert flags == [("Anna", "pick", 0), ("<b>Ben</b>", "", 5), ("<b>Ben</b>", "reject", 0)]
        for context in contexts:
            context.close()


def test_what_is_wrong_is_said_before_anything_is_served(made: Path, tmp_path: Path):
    def call(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "ti_pipeline.cli", "gallery", "serve", "--params", str(ROOT / "params.yaml"), *words],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=ROOT,
        )

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for words, expected in (
            (("--workspace", str(tmp_path)), "holds no gallery yet"),
            (("--workspace", str(made), "--port", str(taken.getsockname()[1])), "cannot be used"),
        ):
            done = call(*words)
            assert done.returncode == 2 and expected in done.stderr and "Traceback" not in done.stderr
    address = "nobody:hidden@127.0.0.1:1/none"
    for url in ("nonsense", "sqlite:////proc/nowhere/x.sqlite", *(f"{scheme}{address}" for scheme in ("postgresql://", "postgresq://", "mysql://")),
                "postgresql://nobody:hidden@127.0.0.1:port/none", "postgresql://127.0.0.1:1/none?password=hidden"):  # fmt: skip
        with pytest.raises(ParamsError) as error:
            Store(url)
        assert "hidden" not in str(error.value)


@pytest.mark.slow
def test_choices_in_postgresql():
    """The same log in a real PostgreSQL, with two writers at once, and four servers that start together."""
    with postgresql() as url:
        store = Store(url)
        writers = [
            threading.Thread(target=lambda p=person: [store.keep([Choice(**decision(n, p))]) for n in range(30)]) for person in ("a", "b")
        ]
        for writer in writers:
            writer.start()
        seen, revision = 0, 0
        while any(writer.is_alive() for writer in writers) or store.news(revision):
            news = store.news(revision)
            seen, revision = seen + len(news), news[-1].revision if news else revision
        assert seen == 60 and len(store.standing()) == 60
        store.keep([Choice(**decision(0, "a", flag="", ticket="back"))])
        assert len(store.standing()) == 59
        assert store.keep([Choice(**decision(0, "a", ticket="again", undoes="a-0"))]).refused == ("again",)
        _tables.drop_all(store._engine)
        keys: list[bytes] = []

        def start_one() -> None:
            with closing(Store(url)) as started:
                keys.append(started.key())

        starts = [threading.Thread(target=start_one) for _ in range(4)]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        assert len(keys) == 4 and len(set(keys)) == 1
        store.close()
