from __future__ import annotations

import http.server
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from ti_pipeline.loopback import spare_loopback

DEAD = "http://127.0.0.1:9"


class Answering(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = self.path.encode()  # a proxy is asked for the whole address
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def answering() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy_set(monkeypatch) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    yield
    os.environ.clear()
    os.environ.update(before)


def asked(address: str) -> set[str]:
    return {httpx.get(address).text, urllib.request.build_opener().open(address).read().decode()}


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_this_machine_is_reached_past_a_proxy(name, monkeypatch) -> None:
    with answering() as address:
        monkeypatch.setenv(name, DEAD)
        spare_loopback()
        assert asked(f"{address}/x") == {"/x"}


def test_other_machines_are_reached_through_it(monkeypatch) -> None:
    with answering() as proxy:
        monkeypatch.setenv("http_proxy", proxy)
        monkeypatch.setenv("NO_PROXY", "example.org")
        spare_loopback()
        assert asked("http://hub.invalid/model") == {"http://hub.invalid/model"}
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "example.org,127.0.0.1,localhost,::1"


def test_every_host_spared_stays_so(monkeypatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    spare_loopback()
    assert os.environ["no_proxy"] == "*"


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "socks4://127.0.0.1:9", "nonsense://127.0.0.1:9"])
def test_a_proxy_that_no_client_speaks_to_stops_nothing(proxy, monkeypatch, caplog) -> None:
    with answering() as address:
        monkeypatch.setenv("ALL_PROXY", proxy)
        spare_loopback()
        assert httpx.get(f"{address}/x").text == "/x"
    assert "ALL_PROXY" in caplog.text and "127.0.0.1:9" not in caplog.text
