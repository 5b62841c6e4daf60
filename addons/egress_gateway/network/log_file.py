"""The log of a process in the background: made anew when it starts, and its last lines for whoever waits for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_LAST_LINES = 5


def open_log(path: Path) -> BinaryIO:
    """An empty log, which nobody else can have put there for us as a link. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return open(os.open(path, flags, 0o640), "wb")


def last_lines(log: Path) -> str:
    """What was said last, as one line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "it said nothing"
    said = [line.strip() for line in lines if line.strip()]
    return " | ".join(said[-_LAST_LINES:]) or "it said nothing"
