"""Tables in the manner of istioctl and kubectl: columns two blanks apart, no lines, no blanks at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

GAP = 2


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """`head` and `rows` as lines of equal columns."""
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "".join(cell.ljust(width + GAP) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
