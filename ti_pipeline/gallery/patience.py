"""HTTP connections that are closed when the other side keeps the server waiting, and a limit on their number per address."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 400  # beyond these a visitor is told to come later; a quarter beyond that, not even told
OF_ONE = 64  # of one address elsewhere; a proxy on this machine is everyone's
SECONDS = {
    "head": 10.0,  # for the whole head of a request, and until the first one comes
    "body": 30.0,  # for the whole body
    "answer": 30.0,  # for the next 48 kB of an answer to be taken
}


class Patient(H11Protocol):
    """uvicorn's protocol, which on its own waits for ever for a request to be complete and an answer to be taken."""

    _waits_for: tuple[str, int] | None = None
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrowed by uvicorn too
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS * 1.25 or self._many_of_one():
            transport.abort()
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._waits_for = None  # something was taken: the time for the rest begins anew
        self._watch()

    def _many_of_one(self) -> bool:
        host = self.client[0] if self.client else ""
        if not host or ip_address(host.partition("%")[0]).is_loopback:
            return False
        return sum(isinstance(other, Patient) and (other.client or ("",))[0] == host for other in self.connections) > OF_ONE

    def _waiting(self) -> tuple[str, int] | None:
        """What the other side has to do next, and in which exchange; None while it is the server's turn."""
        if self.flow.write_paused or self.transport.get_write_buffer_size():
            return "answer", id(self.cycle)
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            return "body", id(self.cycle)
        return ("head", id(self.cycle)) if state is h11.IDLE or self.transport.is_closing() else None

    def _watch(self) -> None:
        waits_for = self._waiting()
        if waits_for == self._waits_for:
            return
        if self._timer:
            self._timer.cancel()
        self._waits_for = waits_for
        self._timer = self.loop.call_later(SECONDS[waits_for[0]], self._lose_patience, waits_for) if waits_for else None

    def _lose_patience(self, waited_for: tuple[str, int]) -> None:
        if self._waiting() == waited_for:
            self.transport.abort()
        else:
            self._watch()


def protocol_options() -> dict[str, Any]:
    """For `uvicorn.Config`."""
    return {"http": Patient, "ws": "none", "limit_concurrency": CONNECTIONS, "timeout_keep_alive": 5}
