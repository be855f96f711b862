"""What every request passes on its way in: the name that it came for, who sends it, how much it brings. In that order: nothing is
read from somebody who may not send it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import PurePosixPath

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ti_pipeline.gallery.gate import Gate, TooMany
from ti_pipeline.gallery.render import POLICY, SITE

LARGEST = 512 * 1024  # bytes of a request's body; 200 decisions have half of it at most
LARGEST_FORM = 4096
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOR_ALL = ("/enter", f"/{SITE}/gallery.css", f"/{SITE}/gallery.js", f"/{SITE}/icon.svg")
_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]+|\[(?P<six>[0-9A-Fa-f:.]+)\])(?::\d{1,5})?")


@dataclass(frozen=True)
class Guard:
    """ASGI middleware. `names` are those that the server answers to, beside the address that a visitor has reached it by where
    `by_address`: a page elsewhere must not reach it under a name of its own (DNS rebinding)."""

    app: ASGIApp
    names: frozenset[str]
    by_address: bool
    gate: Gate | None
    cookie: str  # the name of it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        app: ASGIApp = self._refused(request) or self.app
        body, unread = b"", _has_body(request)
        if app is self.app and request.method == "POST":
            limit = LARGEST_FORM if request.scope["path"] == "/enter" else LARGEST
            try:
                body, unread = await _read(request, limit), False
            except ClientDisconnect:
                return
            except _TooLarge:
                app = _said(413, f"Too large: a request may have at most {limit} bytes.")
        told: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def read() -> Message:
            return told.pop() if told else await receive()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if unread:
                    headers["Connection"] = "close"
            await send(message)

        # Whoever asks for the head alone gets that of the whole; the protocol leaves the body out.
        await app({**scope, "method": "GET"} if request.method == "HEAD" else scope, read, answer)

    def _refused(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._answers_to(host, request.scope.get("server")):
            return _said(400, "This server does not answer to that name. Whoever runs it can add the name with --allowed-host.")
        origin = request.headers.get("origin")
        if request.method == "POST" and origin and origin.partition("://")[2] != host:
            return _said(403, "This page does not belong to this server.")
        if self.gate is None or request.scope["path"] in FOR_ALL or self.gate.knows(request.cookies.get(self.cookie, "")):
            return None
        shown = request.headers.get("authorization", "")
        if shown.startswith("Bearer "):
            try:
                address = request.client.host if request.client else ""
                if self.gate.opens(shown.removeprefix("Bearer ").encode("latin-1"), address):  # the bytes as they came
                    return None
            except TooMany as error:
                return too_many(error)
        path = PurePosixPath(request.scope["path"])
        page_wanted = request.method in ("GET", "HEAD") and not path.is_relative_to("/api") and path.suffix in ("", ".html")
        return RedirectResponse("/enter", 303) if page_wanted else _said(401, "The secret is missing or wrong.")

    def _answers_to(self, host: str, own: tuple[str, int | None] | None) -> bool:
        name = host_name(host)
        return name is not None and (name in self.names or (self.by_address and own is not None and _is_address(name, own[0])))


def too_many(error: TooMany) -> Response:
    response = _said(429, f"Too many wrong secrets. Try again in {error.seconds} seconds.")
    response.headers["Retry-After"] = str(error.seconds)
    return response


def host_name(text: str) -> str | None:
    """The name or address in a Host header, as it is compared: without brackets, port and a final dot. None when it is not one."""
    found = _HOST.fullmatch(text)
    return (found["six"] or found["name"]).lower().rstrip(".") if found else None


def _is_address(name: str, own: str) -> bool:
    try:
        address = ip_address(own.partition("%")[0])
        return ip_address(name) in (address, getattr(address, "ipv4_mapped", None))
    except ValueError:
        return False


class _TooLarge(Exception):
    pass


async def _read(request: Request, limit: int) -> bytes:
    """The whole body. Raises _TooLarge as soon as it is known to be, and ClientDisconnect."""
    if int(request.headers.get("content-length", 0)) > limit:
        raise _TooLarge
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _TooLarge
    return bytes(body)


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _said(status: int, text: str) -> Response:
    return JSONResponse({"detail": text}, status)
