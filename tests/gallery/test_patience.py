"""Whoever keeps the server waiting is let go, and others are served meanwhile. Real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.gallery.server import serving
from ti_pipeline.choices.store import Store
from ti_pipeline.gallery import patience
from ti_pipeline.gallery.serve import make_app

POST = b"POST /api/choices HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "index.html").write_text('<html lang="en" data-root="">here')
    with (tmp_path / "large.txt").open("wb") as large:
        large.truncate(64 << 20)  # more than the system keeps for a connection
    store = Store(f"sqlite:///{tmp_path / 'choices.sqlite'}")
    with serving(make_app(tmp_path, store, title="")) as url:
        yield url
    store.close()


def connect(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])), timeout=60)


def is_let_go(connection: socket.socket) -> bool:
    """Waits until the other side has closed; a whole answer before that counts as well."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(("waits_for", "sent"), [("head", b""), ("head", b"GET / HTTP/1.1\r\nHo"), ("body", POST), ("body", POST + b"x")])
def test_a_request_that_does_not_come_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch, waits_for: str, sent: bytes):
    monkeypatch.setattr(patience, "SECONDS", dict.fromkeys(patience.SECONDS, 3600.0) | {waits_for: 0.2})
    with connect(url) as slow:
        slow.sendall(sent)
        assert httpx.get(url).status_code == 200
        assert is_let_go(slow)


def test_one_byte_now_and_then_buys_no_time(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "SECONDS", patience.SECONDS | {"head": 0.5})
    with connect(url) as slow, pytest.raises(OSError):
        slow.settimeout(0.05)
        slow.sendall(b"GET / HTTP/1.1\r\nX-Slow: ")
        for _ in range(1000):
            slow.sendall(b"x")
            try:
                if not slow.recv(1):
                    raise ConnectionResetError
            except TimeoutError:
                pass


def test_an_answer_that_nobody_takes_is_given_up_and_one_that_is_taken_comes_whole(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "SECONDS", patience.SECONDS | {"answer": 0.3})
    with connect(url) as slow, connect(url) as quick:
        for connection in (slow, quick):
            connection.sendall(b"GET /large.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        taken = 0
        while more := quick.recv(1 << 20):
            taken += len(more)
        assert taken > 64 << 20
        with pytest.raises(OSError):
            for _ in range(5000):  # nothing of the answer is taken, and the server lets go
                assert httpx.get(url).status_code == 200
                slow.sendall(b"x")


def test_a_connection_that_is_used_again_is_not_mistaken_for_a_slow_one(url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "SECONDS", dict.fromkeys(patience.SECONDS, 0.5))
    with connect(url) as one:
        for _ in range(30):
            one.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"here"):
                answer += one.recv(1)
            one.settimeout(0.05)
            with pytest.raises(TimeoutError):
                one.recv(1)
            one.settimeout(60)


def test_too_many_connections_are_told_to_come_later(url: str, monkeypatch: pytest.MonkeyPatch):
    """uvicorn's own limit is set when it starts; what comes beyond it is not even answered."""
    monkeypatch.setattr(patience, "CONNECTIONS", 4)
    with ExitStack() as stack:
        held = [stack.enter_context(connect(url)) for _ in range(5)]
        for connection in held:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert is_let_go(stack.enter_context(connect(url)))
        held[0].close()
        for _ in range(1000):
            try:
                assert httpx.get(url).status_code == 200
                break
            except httpx.TransportError:  # the one that left is not yet forgotten
                continue
        else:
            pytest.fail("there is no room again")


def test_one_address_elsewhere_does_not_take_all_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(("192.0.2.1", 9))  # sends nothing; tells the address that this machine has for others
        except OSError:
            pytest.skip("this machine has no address but its own")
        own = asking.getsockname()[0]
    monkeypatch.setattr(patience, "OF_ONE", 3)
    store = Store(f"sqlite:///{tmp_path / 'choices.sqlite'}")
    with serving(make_app(tmp_path, store, title=""), "0.0.0.0") as url, ExitStack() as stack:
        port = int(url.rstrip("/").rpartition(":")[2])
        for _ in range(3):
            held = stack.enter_context(socket.create_connection((own, port), timeout=60))
            held.sendall(b"GET /enter HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert held.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert is_let_go(stack.enter_context(socket.create_connection((own, port), timeout=60)))
        assert [httpx.get(f"{url}enter").status_code for _ in range(5)] == [200] * 5  # others are served
    store.close()
