"""A check of an HTML page: well-formed, and complete in itself."""

from __future__ import annotations

from html.parser import HTMLParser


class Checker(HTMLParser):
    """Balanced tags, unique ids, links that lead somewhere, and nothing fetched from elsewhere."""

    void = frozenset({"meta", "link", "br"})
    loads = frozenset({"src", "srcset", "data", "poster", "action", "href", "xlink:href"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            assert not key.startswith("on"), key
            if key == "id":
                self.ids.append(value or "")
            if key in self.loads:
                self.targets.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
