"""Files that appear in one step."""

from __future__ import annotations

from pathlib import Path


def put(file: Path, text: str) -> None:
    """Writes `file` whole: one that is written in place is empty for a moment, and may be read just then."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(file)
