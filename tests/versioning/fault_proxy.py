"""A TCP proxy that stands before the S3 server and does to it what networks do."""

from __future__ import annotations

import random
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

UNAVAILABLE = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nConnection: close\r\nContent-Length: 88\r\n\r\n"
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate</Message></Error>  "
)


class FaultProxy:
    """`cut_every` bytes a connection is cut; `unavailable` of all requests is answered 503; after `die_after` bytes nothing answers."""

    def __init__(self, target: str, *, cut_every: int = 0, unavailable: float = 0.0, die_after: int = 0, seed: int = 0):
        parts = urlsplit(target)
        self.target = (parts.hostname, parts.port)
        self.cut_every, self.unavailable, self.die_after = cut_every, unavailable, die_after
        self.seen = self.refused = self.cuts = 0
        self.requests: list[str] = []
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.endpoint = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """Close everything; from now on connections are refused."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in list(self.open):
            _reset(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self.target, timeout=30)
        except OSError:
            client.close()
            return
        self.open |= {client, server}
        budget = [self.cut_every]
        back = threading.Thread(target=self._pump, args=(server, client, budget), daemon=True)
        try:
            head = self._head(client)
            if head and self.unavailable and self._unlucky():
                client.sendall(UNAVAILABLE)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(0.3)
                with suppress(OSError):
                    while client.recv(65536):
                        pass
                return
            if self.unavailable:  # one request a connection, so that each has its own fate
                head = re.sub(rb"(?i)\r\nConnection: [^\r]*", b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            back.start()
            if self._pass(head, server, budget):
                self._pump(client, server, budget)
            back.join(30)
        except OSError:
            pass
        finally:
            for one in (client, server):
                self.open.discard(one)
                one.close()

    def _head(self, client: socket.socket) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head and (part := client.recv(65536)):
            head += part
        self.requests.append(head.split(b"\r\n", 1)[0].decode(errors="replace"))
        return head

    def _unlucky(self) -> bool:
        with self.lock:
            hit = self.random.random() < self.unavailable
            self.refused += hit
        return hit

    def _pump(self, source: socket.socket, target: socket.socket, budget: list[int]) -> None:
        with suppress(OSError):
            while data := source.recv(16384):
                if not self._pass(data, target, budget):
                    return
            target.shutdown(socket.SHUT_WR)

    def _pass(self, data: bytes, target: socket.socket, budget: list[int]) -> bool:
        """Send on what the faults allow; False when the connection has been cut."""
        with self.lock:
            self.seen += len(data)
            dead = self.die_after and self.seen >= self.die_after
        if dead:
            self.die()
            return False
        if self.cut_every:
            budget[0] -= len(data)
            if budget[0] < 0:
                self.cuts += 1
                with suppress(OSError):
                    target.sendall(data[: budget[0]])
                for one in list(self.open):
                    if one is target:
                        _reset(one)
                return False
        target.sendall(data)
        return True


def _reset(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty(target: str, **faults: float) -> Iterator[FaultProxy]:
    proxy = FaultProxy(target, **faults)
    try:
        yield proxy
    finally:
        proxy.die()
