"""The server: the same pages as in the folder, and beside them where choices and answers are kept for everyone.

Nothing is answered as kept that is not on the disk. With a secret every page, picture and choice wants it; without one
the server is meant for the machine that it runs on.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ti_pipeline.choices.files import AnswerIn, ChoiceIn
from ti_pipeline.choices.store import Store
from ti_pipeline.gallery.render import POLICY, SITE, render

COOKIE = "gallery"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MONTH = 30 * 24 * 3600
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
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Choices(BaseModel):
    choices: list[ChoiceIn] = Field(max_length=500)


class Answers(BaseModel):
    answers: list[AnswerIn] = Field(max_length=500)


def make_app(galleries: Path, store: Store, *, title: str, secret: str | None = None, hosts: tuple[str, ...] = LOOPBACK) -> FastAPI:
    """The application. `hosts` are the names that it answers to: another site's page must not reach a server on this machine."""
    app = FastAPI(title="ti-pipeline gallery", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    root = galleries.resolve()
    pass_ = hashlib.sha256(f"ti-pipeline gallery {secret}".encode()).hexdigest() if secret else ""

    def may(request: Request) -> bool:
        if not secret:
            return True
        shown = request.headers.get("authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), pass_.encode()) or _same(shown, secret)

    @app.middleware("http")
    async def guard(request: Request, call_next) -> Response:
        path = request.url.path
        for_all = path in ("/enter", f"/{SITE}/gallery.css", f"/{SITE}/gallery.js", f"/{SITE}/icon.svg")
        origin = request.headers.get("origin")
        if request.method == "POST" and origin and origin.partition("://")[2] != request.headers.get("host"):
            response: Response = JSONResponse({"detail": "This page is not of this server."}, status_code=403)
        elif not for_all and not may(request):
            page_wanted = request.method == "GET" and not path.startswith("/api/") and Path(path).suffix in ("", ".html")
            refused = JSONResponse({"detail": "The secret is missing."}, status_code=401)
            response = RedirectResponse("/enter", 303) if page_wanted else refused
        else:
            response = await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.get("/enter")
    def enter() -> HTMLResponse:
        return HTMLResponse(render("enter.html", title=title, wrong=False))

    @app.post("/enter")
    async def entered(request: Request) -> Response:
        given = parse_qs((await request.body())[:2000].decode(errors="replace")).get("secret", [""])[0]
        if not secret or not _same(given, secret):
            return HTMLResponse(render("enter.html", title=title, wrong=True), status_code=403 if secret else 404)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, pass_, max_age=MONTH, httponly=True, samesite="strict")
        return response

    @app.get("/api/choices")
    def news(since: Annotated[int, Query(ge=0)] = 0) -> dict:
        rows = store.news(since)
        fields = ("concept", "picture", "person", "name", "flag", "stars", "at", "ticket")
        return {"revision": rows[-1].revision if rows else since, "choices": [{f: getattr(row, f) for f in fields} for row in rows]}

    @app.post("/api/choices")
    def keep(sent: Choices) -> dict:
        return {"revision": store.keep(row.choice() for row in sent.choices)}

    @app.post("/api/answers")
    def keep_answers(sent: Answers) -> dict:
        return {"revision": store.keep_answers(row.answer() for row in sent.answers)}

    @app.get("/{path:path}")
    def page(path: str) -> Response:
        target = (root / path).resolve()
        if target.is_dir():
            if path and not path.endswith("/"):
                return RedirectResponse(f"/{path}/", 307)
            target = target / "index.html"
        if not target.is_relative_to(root) or target.suffix not in TYPES or not target.is_file():
            return HTMLResponse("<!doctype html><title>Not here</title><p>There is no such page.</p>", status_code=404)
        if target.suffix == ".html":
            html = target.read_text(encoding="utf-8").replace('<html lang="en" ', '<html lang="en" data-server ', 1)
            return HTMLResponse(html, headers={"Cache-Control": "no-cache"})
        changing = target.suffix in (".css", ".js", ".safetensors")  # pictures have their digests in their names
        kept = "no-cache" if changing else "private, max-age=604800, immutable"
        return FileResponse(target, media_type=TYPES[target.suffix], headers={"Cache-Control": kept})

    return app


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())
