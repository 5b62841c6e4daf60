"""The running commentary: coloured on a terminal, plain text elsewhere, and with time to read it.

What is run stands behind `$`, what a client sends behind an arrow, what came back behind a bar, and what the demo has
checked behind a tick.
"""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Mapping
from typing import TextIO

_BOLD, _DIM, _RED, _GREEN, _YELLOW, _CYAN = 1, 2, 31, 32, 33, 36
_TO_ASCII = str.maketrans({"─": "-", "│": "|", "✓": "+", "✗": "x", "→": ">", "·": "-", "…": "~"})
_WIDEST = 100


class Console:
    """Writes to `stream`. On a terminal it pauses, unless `fast`, so that people can follow."""

    def __init__(self, stream: TextIO, *, fast: bool = False, environment: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self._fast = fast or not stream.isatty()
        self._colours = (
            stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") not in ("", "dumb")
        )
        self._width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns) if stream.isatty() else _WIDEST
        self._unicode = _can_write(stream, "─│✓✗→·…")
        self._after_blank = False

    def title(self, text: str, subtitle: str) -> None:
        self._line()
        self._line(f"  {self._paint(text, _BOLD)}")
        self._line(f"  {self._paint(subtitle, _DIM)}")

    def act(self, number: int, title: str) -> None:
        self._line()
        rule = "─" * max(3, self._width - len(title) - 12)
        self._line(self._paint(f"── Act {number} · {title} {rule}", _BOLD, _CYAN))
        self._line()
        self._pause(0.3)

    def say(self, text: str) -> None:
        """A paragraph of the story."""
        for line in textwrap.wrap(text, self._width - 4, break_long_words=False, break_on_hyphens=False):
            self._line(f"  {line}")
        self._pause(0.5)

    def rows(self, rows: list[tuple[str, str, str]]) -> None:
        """A small table; the first column stands out."""
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for first, second, third in rows:
            name = self._paint(first.ljust(widths[0]), _BOLD)
            self._line(f"    {name}  {second.ljust(widths[1])}  {self._paint(third, _DIM)}".rstrip())
        self._pause(0.8)

    def command(self, text: str) -> None:
        """A command that is run."""
        self._blank()
        self._line(f"  {self._paint('$', _DIM)} {self._paint(text, _BOLD)}")
        self._pause(0.15)

    def request(self, text: str) -> None:
        """What a client sends."""
        self._blank()
        self._line(f"  {self._paint('→', _YELLOW)} {self._paint(text, _BOLD)}")
        self._pause(0.15)

    def output(self, text: str) -> None:
        """What came back, in full."""
        for line in text.rstrip().split("\n"):
            self._line(f"  {self._paint('│', _DIM)} {line}".rstrip())
        self._pause(0.25)

    def holds(self, claim: str) -> None:
        """Something that was checked and is so."""
        self._line(f"  {self._paint('✓', _GREEN)} {self._paint(claim, _GREEN)}")
        self._pause(0.1)

    def differs(self, claim: str, found: str) -> None:
        """Something that was checked and is not so."""
        self._line(f"  {self._paint('✗', _RED)} {self._paint(claim, _RED)}")
        for line in found.rstrip().split("\n"):
            self._line(f"    {line}".rstrip())

    def end(self, text: str) -> None:
        self._line()
        self._line(f"  {self._paint(text, _BOLD, _GREEN)}")
        self._line()

    def _blank(self) -> None:
        """A blank line, unless there is one already."""
        if not self._after_blank:
            self._line()

    def _line(self, text: str = "") -> None:
        self._after_blank = not text
        self._stream.write((text if self._unicode else text.translate(_TO_ASCII)) + "\n")
        self._stream.flush()

    def _paint(self, text: str, *codes: int) -> str:
        return f"\x1b[{';'.join(map(str, codes))}m{text}\x1b[0m" if self._colours and text else text

    def _pause(self, seconds: float) -> None:
        if not self._fast:
            time.sleep(seconds)


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except (LookupError, UnicodeEncodeError):
        return False
    return True
