from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.gallery.server import Server
from tests.gallery.small_gallery import collection

expect.set_options(timeout=30_000)  # a busy machine is no failure


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser: from CHROMIUM, PATH or `playwright install chromium`, else the tests that need one are skipped.

    Its event loop ends with the module's tests: under it Prefect would hand out coroutines to the next module's.
    """
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        path = path or playwright.chromium.executable_path
        if not Path(path).is_file():
            pytest.skip("no Chromium. Install it (on Debian: apt-get install chromium), or set CHROMIUM to the path of one")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of a small collection."""
    return collection(tmp_path_factory.mktemp("collection"))[0].root


@pytest.fixture(scope="session")
def folder(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its galleries alone, somewhere else, as the address that they open from: what they need must have come along."""
    to = tmp_path_factory.mktemp("elsewhere") / "galleries"
    return shutil.copytree(made / "artifacts" / "galleries", to).as_uri() + "/"


@pytest.fixture(scope="session")
def server(made: Path) -> Iterator[Server]:
    with Server(made) as running:
        yield running


@pytest.fixture(params=["folder", "server"])
def address(request: pytest.FixtureRequest) -> str:
    """Where the pages open from: a folder, then the server."""
    return request.getfixturevalue("folder") if request.param == "folder" else request.getfixturevalue("server").url


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Whatever the console has to say, a blocked style among it, and anything from elsewhere fails the test."""
    context = chromium.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "http://127.0.0.1:", "blob:")) else None)
    yield page
    context.close()
    assert complaints == []
