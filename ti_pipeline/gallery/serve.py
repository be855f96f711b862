"""The server: the same pages as in the folder, and a place where everyone's choices and answers are kept.

Nothing is answered as kept that is not on the disk. With a secret every page, picture and choice wants it; without one
the server is meant for the machine that it runs on.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qs, quote

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, Field

from ti_pipeline.choices.files import MOST, AnswerIn, ChoiceIn, first_fault
from ti_pipeline.choices.store import Choice, Store
from ti_pipeline.gallery.gate import MONTH, Gate, TooMany
from ti_pipeline.gallery.guard import Guard
from ti_pipeline.gallery.render import render

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".safetensors": "application/octet-stream",
}
LARGEST_NUMBER = 2**63 - 1  # that a database counts to


class Choices(BaseModel):
    choices: list[ChoiceIn] = Field(max_length=MOST)


class Answers(BaseModel):
    answers: list[AnswerIn] = Field(max_length=MOST)


def make_app(
    galleries: Path, store: Store, *, title: str, secret: str | None = None, names: Iterable[str] = LOOPBACK, by_address: bool = False
) -> FastAPI:
    """The application. It answers to `names`, and `by_address` also to the address of this machine that a visitor has come to."""
    app = FastAPI(title="ti-pipeline gallery", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    root, key = galleries.resolve(), store.key()
    here = hmac.new(key, b"cookies", hashlib.sha256).hexdigest()[:8]  # browsers keep the cookies of all ports of a machine together
    entered, chosen = f"gallery-{here}", f"gallery-{here}-person"
    gate = Gate(secret, key) if secret else None
    app.add_middleware(Guard, names=frozenset(names), by_address=by_address, gate=gate, cookie=entered)

    def others_see(person: str) -> str:
        """A person's pseudonym in what is handed out: nobody can choose with it."""
        return hmac.new(key, person.encode(), hashlib.sha256).hexdigest()[:24]

    def shown(choice: Choice, me: str | None) -> dict[str, Any]:
        row = {name: value for name, value in asdict(choice).items() if name not in ("revision", "undoes")}
        return row | {"person": choice.person if choice.person == me else others_see(choice.person)}

    @app.exception_handler(RequestValidationError)
    def wrong(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": f"{first_fault(error.errors())}."}, 422)

    @app.get("/enter")
    def enter() -> HTMLResponse:
        return HTMLResponse(render("enter.html", title=title, wrong=""))

    @app.post("/enter")
    async def enter_with(request: Request) -> Response:
        if gate is None:
            return _nothing_there()
        given = parse_qs((await request.body()).decode(errors="replace")).get("secret", [""])[0]
        try:
            right = gate.opens(given.encode(), request.client.host if request.client else "")
        except TooMany as error:
            text = f"Too many wrong secrets. Try again in {error.seconds} seconds."
            return HTMLResponse(render("enter.html", title=title, wrong=text), 429, headers={"Retry-After": str(error.seconds)})
        if not right:
            return HTMLResponse(render("enter.html", title=title, wrong="That is not the secret."), 403)
        response = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        response.set_cookie(entered, gate.cookie(), max_age=MONTH, httponly=True, samesite="strict", secure=secure)
        return response

    @app.get("/api/choices")
    def news(request: Request, since: Annotated[int, Query(ge=0, le=LARGEST_NUMBER)] = 0) -> dict[str, Any]:
        rows, me = store.news(since), request.headers.get("gallery-person") or request.cookies.get(chosen)
        return {
            "revision": rows[-1].revision if rows else since,
            "you": others_see(me) if me else None,
            "most": MOST,
            "choices": [shown(row, me) for row in rows],
        }

    @app.post("/api/choices")
    def keep(sent: Choices) -> Response:
        kept = store.keep(row.choice() for row in sent.choices)
        me = sent.choices[-1].person if sent.choices else None
        answer: dict[str, Any] = {"revision": kept.revision, "you": others_see(me) if me else None}
        if kept.refused:
            answer |= {"detail": "Not undone: a newer choice has been made since.", "refused": kept.refused}
            answer |= {"newer": [shown(row, row.person) for row in kept.newer]}
        response = JSONResponse(answer, 409 if kept.refused else 200)
        if me:
            response.set_cookie(chosen, me, max_age=MONTH, httponly=True, samesite="strict", path="/api")
        return response

    @app.post("/api/answers")
    def keep_answers(sent: Answers) -> dict[str, int]:
        return {"revision": store.keep_answers(row.answer() for row in sent.answers)}

    @app.get("/{path:path}")
    def page(path: str) -> Response:
        try:
            return _file(root, path)
        except (OSError, ValueError):  # a name that no disk has, a file that has just gone
            return _nothing_there()

    return app


def _file(root: Path, path: str) -> Response:
    """A file of the galleries. Raises OSError and ValueError for anything else; never looks outside of them."""
    target = (root / path).resolve()
    if path.startswith("/") or "//" in path or not target.is_relative_to(root):
        return _nothing_there()
    if path.endswith("/") or target.is_dir():
        if path and not path.endswith("/"):
            return RedirectResponse(f"/{quote(target.relative_to(root).as_posix())}/", 307)
        target = target / "index.html"
    if target.suffix not in TYPES or not target.is_file():
        return _nothing_there()
    if target.suffix == ".html":
        html = target.read_text(encoding="utf-8").replace('<html lang="en" ', f'<html lang="en" data-server data-most="{MOST}" ', 1)
        return HTMLResponse(html, headers={"Cache-Control": "no-cache"})
    changing = target.suffix in (".css", ".js", ".safetensors")  # pictures have their digests in their names
    kept = "no-cache" if changing else "private, max-age=604800, immutable"
    return FileResponse(target, media_type=TYPES[target.suffix], headers={"Cache-Control": kept}, stat_result=target.stat())


def _nothing_there() -> Response:
    return HTMLResponse("<!doctype html><title>Not here</title><p>There is no such page.</p>", status_code=404)
