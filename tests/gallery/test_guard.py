"""What a request passes before it is read, over real connections."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.gallery.server import serving
from ti_pipeline.choices.files import MOST
from ti_pipeline.choices.store import Store
from ti_pipeline.gallery.gate import OF_ONE
from ti_pipeline.gallery.guard import LARGEST, host_name
from ti_pipeline.gallery.serve import make_app

JSON = {"Content-Type": "application/json"}
BEARER = {"Authorization": "Bearer öffne dich".encode()}
ROW = {"concept": "toy", "picture": "0" * 16, "flag": "pick", "stars": 0, "at": "now", "person": "anna", "name": "Anna"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'choices.sqlite'}")
    yield store
    store.close()


@pytest.fixture
def open_url(made: Path, store: Store) -> Iterator[str]:
    with serving(make_app(made / "artifacts" / "galleries", store, title="Open")) as url:
        yield url


@pytest.fixture
def locked_url(made: Path, store: Store) -> Iterator[str]:
    with serving(make_app(made / "artifacts" / "galleries", store, title="Locked", secret="öffne dich")) as url:
        yield url


def raw(url: str, *parts: bytes) -> bytes:
    """What comes back until the server closes, even if it takes nothing more."""
    host, _, port = url[7:].rstrip("/").partition(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            for part in parts:
                connection.sendall(part)
            while more := connection.recv(65536):
                got += more
        except OSError:  # the server has closed on what it will not read
            got += connection.recv(65536) if not got else b""
    return got


def head(path: str, *lines: str) -> bytes:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", *lines, "", "")).encode("utf-8")


def test_who_may_not_send_is_told_so_before_anything_is_read(locked_url: str):
    """A body of 600 MB is announced and never sent: an answer shows that nobody waits for it."""
    announced = "Content-Length: 629145600"
    assert raw(locked_url, head("/api/choices", announced)).startswith(b"HTTP/1.1 401 ")
    assert raw(locked_url, head("/api/choices", announced, "Authorization: Bearer wrong")).startswith(b"HTTP/1.1 401 ")
    assert raw(locked_url, head("/api/choices", announced, "Authorization: Bearer öffne dich")).startswith(b"HTTP/1.1 413 ")
    assert raw(locked_url, head("/enter", announced)).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("sign", ["%3F", "%23", "%3f/..", "%2f..", "/..", "%5c.."])
def test_no_spelling_of_a_path_gets_round_the_secret(locked_url: str, sign: str):
    """What is open to all is told by the path that is served, not by the address that it looks like."""
    for before in ("enter", "_site/gallery.css"):
        for up in ("/../", "/../../"):
            for wanted in ("toy/word/ti-toy.safetensors", "api/choices", "toy/index.html"):
                line = f"GET /{before}{sign}{up}{wanted} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                assert raw(locked_url, line.encode()).split(b" ")[1] in (b"303", b"401", b"404"), line


def test_a_body_without_a_length_is_cut_off_as_it_comes(open_url: str):
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    sent = head("/api/choices", "Transfer-Encoding: chunked", "Content-Type: application/json") + chunk * (LARGEST // 0x8000 + 1)
    answer = raw(open_url, sent)  # and no end of it
    assert answer.startswith(b"HTTP/1.1 413 ") and b"Too large" in answer and b"connection: close" in answer.lower()


def test_a_request_of_as_many_decisions_as_are_allowed_is_kept(open_url: str, store: Store):
    rows = [ROW | {"ticket": f"{n:064x}", "picture": f"{n:016x}", "name": "\U0001f98a" * 40, "undoes": "f" * 64} for n in range(MOST + 1)]
    for way in ("choices", "answers"):
        sent = httpx.post(f"{open_url}api/{way}", content=json.dumps({way: rows}), headers=JSON)
        assert sent.status_code == 422 and f"at most {MOST}" in sent.json()["detail"]
    assert httpx.post(f"{open_url}api/choices", content=json.dumps({"choices": rows[:MOST]}), headers=JSON).status_code == 200
    assert len(store.standing()) == MOST


def test_it_answers_to_its_own_names_only(made: Path, store: Store):
    def codes(url: str, *hosts: str) -> list[int]:
        return [httpx.get(url, headers={"Host": host}).status_code for host in hosts]

    here = made / "artifacts" / "galleries"
    with serving(make_app(here, store, title="", names={"localhost", "gallery.example", "::1"}, by_address=True)) as url:
        good = ("localhost", "LOCALHOST:99", "gallery.example", "gallery.example.:8765", "[::1]:80", "127.0.0.1")
        assert codes(url, *good) == [200] * len(good)
        bad = ("evil.example", "gallery.example.evil.example", "198.51.100.7", "localhost@evil.example", "a b", "[::2]", "", "localhost:x")
        assert codes(url, *bad) == [400] * len(bad)
        assert "--allowed-host" in httpx.get(url, headers={"Host": "evil.example"}).json()["detail"]
    with serving(make_app(here, store, title="", names={"localhost"})) as url:
        assert codes(url, "localhost", "127.0.0.1") == [200, 400]
    assert [host_name(text) for text in ("[2001:DB8::1]:1", "A.b.", "https://a", "a/b")] == ["2001:db8::1", "a.b", None, None]


@pytest.mark.parametrize(
    "path",
    ["/etc", "/evil.example", "/evil.example/%2e%2e", "%00", "toy/%00", "a" * 5000, "%2fetc", "toy/..%2f..%2f..%2f..%2fetc",
     "toy/index.html/", "toy//index.html",
     "api/choices?since=NaN", "api/choices?since=-1", f"api/choices?since={2**70}", "toy/%0d%0aX:%20y", "%ff", "%ud800"],
)  # fmt: skip
def test_a_malformed_address_is_the_visitors_fault(open_url: str, path: str):
    answer = raw(open_url, f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.split(b" ")[1] in (b"404", b"422"), answer[:300]
    assert b"location" not in answer.lower()


@pytest.mark.parametrize(
    "body",
    ["[null]", "null", '{"choices": [null]}', '{"choices": [{"stars": NaN}]}', "[" * 100_000, "\\", '"\\ud800"', '{"choices": {"a": 1}}']
    + [json.dumps({"choices": [ROW | {"ticket": "t"} | wrong]}) for wrong in (
        {"stars": 2.5}, {"stars": 1e400}, {"stars": True}, {"picture": "\ud800"}, {"at": "\0"}, {"at": "x" * 33}, {"ticket": "a\n"},
        {"person": "\U0001f98a"}, {"undoes": ""}, {"concept": None})],
)  # fmt: skip
def test_a_malformed_decision_is_refused_in_a_sentence(open_url: str, store: Store, body: str):
    sent = httpx.post(f"{open_url}api/choices", content=body, headers=JSON)
    assert sent.status_code in (400, 422) and isinstance(sent.json()["detail"], str), sent.text
    assert store.news() == []


def test_half_an_emoji_in_a_name_does_not_keep_a_choice_out(open_url: str, store: Store):
    body = json.dumps({"choices": [ROW | {"ticket": "t", "name": "Anna \ud83e\0"}]})
    assert httpx.post(f"{open_url}api/choices", content=body, headers=JSON).status_code == 200
    assert [choice.name for choice in store.news()] == ["Anna \ufffd\ufffd"]
    assert httpx.get(f"{open_url}api/choices").json()["choices"][0]["name"] == "Anna \ufffd\ufffd"


def test_the_head_of_everything_is_that_of_the_whole(locked_url: str):
    for path in ("", "toy/", "toy", "enter", "api/choices", "_site/gallery.js", "nothing"):
        whole, alone = (httpx.request(method, f"{locked_url}{path}", headers=BEARER) for method in ("GET", "HEAD"))
        assert (alone.status_code, alone.content) == (whole.status_code, b"")
        assert {k: v for k, v in alone.headers.items() if k != "date"} == {k: v for k, v in whole.headers.items() if k != "date"}
    assert httpx.head(f"{locked_url}toy/word/ti-toy.safetensors").status_code == 401


def test_wrong_words_have_to_wait_and_who_is_in_does_not(locked_url: str):
    inside = httpx.Client()
    assert inside.post(f"{locked_url}enter", data={"secret": "öffne dich"}).status_code == 303
    tries = [httpx.post(f"{locked_url}enter", data={"secret": str(n)}).status_code for n in range(OF_ONE)]
    assert tries == [403] * OF_ONE
    held = httpx.post(f"{locked_url}enter", data={"secret": "öffne dich"})
    assert held.status_code == 429 and int(held.headers["Retry-After"]) > 0 and "Too many wrong secrets" in held.text
    program = httpx.get(f"{locked_url}api/choices", headers=BEARER)
    assert program.status_code == 429 and int(program.headers["Retry-After"]) > 0
    assert inside.get(f"{locked_url}api/choices").status_code == 200
    assert "secure" not in str(inside.cookies.jar).lower().replace("secure=false", "")


def test_nobody_can_choose_as_another_with_what_is_handed_out(open_url: str, store: Store):
    def send(person: str, ticket: str, flag: str) -> dict:
        rows = [ROW | {"person": person, "ticket": ticket, "flag": flag}]
        return httpx.post(f"{open_url}api/choices", json={"choices": rows}).json()

    you = send("anna-secret", "t1", "pick")["you"]
    seen = httpx.get(f"{open_url}api/choices")
    assert "anna-secret" not in seen.text and seen.json()["choices"][0]["person"] == you and seen.json()["you"] is None
    send(you, "t2", "reject")
    assert [(choice.person, choice.flag) for choice in store.standing()] == [("anna-secret", "pick"), (you, "reject")]
    own = httpx.get(f"{open_url}api/choices", headers={"Gallery-Person": "anna-secret"}).json()
    assert own["you"] == you and [row["person"] for row in own["choices"]].count("anna-secret") == 1
    assert own["choices"][1]["person"] not in (you, "anna-secret")
    browser = httpx.Client()
    browser.post(f"{open_url}api/choices", json={"choices": [ROW | {"person": "anna-secret", "ticket": "t1"}]})
    assert browser.get(f"{open_url}api/choices").json()["choices"][0]["person"] == "anna-secret"  # without the header
    assert "anna-secret" not in str(browser.get(open_url).request.headers.get("cookie", ""))


def test_an_undo_of_what_is_no_longer_the_last_is_refused_and_the_rest_kept(open_url: str, store: Store):
    def send(*rows: dict) -> httpx.Response:
        return httpx.post(f"{open_url}api/choices", json={"choices": [ROW | row for row in rows]})

    send({"ticket": "a1"}, {"ticket": "b1", "flag": "", "stars": 4})
    undo = {"ticket": "u1", "flag": "", "undoes": "a1"}
    refused = send(undo, {"ticket": "c1", "picture": "1" * 16})
    assert refused.status_code == 409 and refused.json()["refused"] == ["u1"]
    assert [(row["ticket"], row["stars"], row["person"]) for row in refused.json()["newer"]] == [("b1", 4, "anna")]
    assert [choice.ticket for choice in store.standing()] == ["b1", "c1"]
    assert send(undo).status_code == 409
    assert send({"ticket": "u2", "flag": "", "undoes": "b1"}).status_code == 200
    assert send({"ticket": "u2", "flag": "", "undoes": "b1"}).status_code == 200  # again, for the answer was lost
    assert [choice.ticket for choice in store.standing()] == ["c1"]
