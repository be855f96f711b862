"""Pictures of the pages, for the documentation: `python -m tests.gallery.screenshots WORKSPACE docs/screenshots [CONCEPT]`.

The workspace's gallery must be built. Needs Chromium as the tests do: from CHROMIUM or PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from ti_pipeline.files import atomic

SIZES = {390: 844, 1280: 900, 2560: 1440}


def until(page: Page, expression: str, seconds: float = 30) -> None:
    """Wait for something to be true. (The library's own way evaluates strings in the page, which the policy forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"never came true: {expression}"
        page.wait_for_timeout(20)


def settle(page: Page) -> None:
    page.evaluate("document.querySelectorAll('img').forEach(image => { image.loading = 'eager' })")
    until(page, "[...document.images].filter(image => image.checkVisibility()).every(image => image.complete)")


def shoot(page: Page, path: Path) -> None:
    with atomic(path) as temporary:
        page.screenshot(path=temporary)
    print(path)


def choose_some(page: Page) -> None:
    """As someone who has looked for a minute."""
    page.locator(".card:visible .frame").first.focus()
    for key in ("o", "5", "p", "4", "ArrowRight", "x", "3", "p"):
        page.keyboard.press(key)
    page.evaluate("scrollTo({top: 0, behavior: 'instant'}); document.querySelector('.toast').hidden = true")


def screenshots(galleries: Path, folder: Path, concept: str) -> None:
    """The overview, a concept's page light and dark, the viewer and the comparison, at three widths."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for width, height in SIZES.items():
            touch = width < 500
            context = browser.new_context(viewport={"width": width, "height": height}, has_touch=touch, is_mobile=touch,
                                          device_scale_factor=2 if touch else 1, reduced_motion="reduce")  # fmt: skip
            page = context.new_page()
            page.goto((galleries / concept / "index.html").as_uri())
            choose_some(page)
            settle(page)
            shoot(page, folder / f"concept-{width}.png")
            page.emulate_media(color_scheme="dark")
            shoot(page, folder / f"concept-dark-{width}.png")
            page.emulate_media(color_scheme="light")
            page.keyboard.press("Enter")
            page.wait_for_selector(".pswp__img:not(.pswp__img--placeholder)")
            page.wait_for_timeout(400)
            shoot(page, folder / f"viewer-{width}.png")
            page.keyboard.press("Escape")
            page.wait_for_selector(".pswp", state="detached")
            for _ in range(2):
                page.keyboard.press("c")
                page.keyboard.press("ArrowLeft")
            page.keyboard.press("g")
            page.wait_for_timeout(300)
            shoot(page, folder / f"compare-{width}.png")
            if (galleries / concept / "index.html").read_text(encoding="utf-8").count('data-view="versus"'):
                page.keyboard.press("Escape")
                page.keyboard.press("d")
                settle(page)
                page.wait_for_timeout(200)
                shoot(page, folder / f"differences-{width}.png")
            page.goto((galleries / "index.html").as_uri())
            settle(page)
            shoot(page, folder / f"overview-{width}.png")
            if (galleries / "_questionnaire" / "index.html").is_file() and width == 1280:
                page.goto((galleries / "_questionnaire" / "index.html").as_uri())
                settle(page)
                shoot(page, folder / f"questionnaire-{width}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    workspace, to, *names = sys.argv[1:]
    root = Path(workspace).resolve() / "artifacts" / "galleries"
    screenshots(root, Path(to), names[0] if names else sorted(path.parent.name for path in root.glob("*/page.json"))[0])
