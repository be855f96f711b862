"""A page as a list of elements with their attributes and texts; elements that are not closed in order are an error."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "img", "wbr", "br", "input", "hr"}


class Page(HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.path, self.elements, self.texts, self._open = path, [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def links(self) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.elements for name in ("href", "src") if name in attributes]

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]
