"""A page as a terminal can show it: a line for each block, the decoration left out."""

from __future__ import annotations

import textwrap
from html.parser import HTMLParser

_WIDEST = 92
_BLOCKS = frozenset({"div", "h1", "h2", "p", "tr", "blockquote", "cite"})
_DECORATION = frozenset({"style", "title", "header", "figure", "s"})


def as_text(html: str) -> str:
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = [textwrap.shorten(line, _WIDEST, placeholder=" …") for line in "".join(reader.parts).split("\n")]
    return "\n".join(filter(None, lines))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self._decoration = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._decoration += tag in _DECORATION
        self.parts.append("\n" if tag in _BLOCKS else " ")

    def handle_endtag(self, tag: str) -> None:
        self._decoration -= tag in _DECORATION
        self.parts.append("\n" if tag in _BLOCKS else " ")

    def handle_data(self, data: str) -> None:
        if not self._decoration:
            self.parts.append(data.replace("\n", " "))
