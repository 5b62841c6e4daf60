"""The tree of one document: what was written and where. Nothing is interpreted yet; `shape` asks for types.

Lines and columns count from 1, offsets are characters from the start of the text.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Scalar:
    text: str
    plain: bool
    """Written without quotes, so that YAML 1.1 may read something else than a string in it."""
    line: int
    column: int
    start: int
    end: int


@dataclass(slots=True)
class Mapping:
    entries: dict[str, tuple[Scalar, Node]]
    line: int
    column: int
    start: int
    end: int = 0


@dataclass(slots=True)
class Sequence:
    items: list[Node]
    line: int
    column: int
    start: int
    end: int = 0


@dataclass(slots=True)
class Hole:
    """Stands where something was refused and reported, so that nothing more is said of it."""

    line: int
    column: int
    start: int
    end: int = 0


Node = Scalar | Mapping | Sequence | Hole
