"""Prometheus' text format over all processes that count: what `/metrics` says of one process, or of many.

The rules of this file:

- Counters and histograms are summed over the arenas. Gauges are summed too, or the greatest or the least of them
  counts, as their table declares.
- Reading stops nobody. A row that changes while it is read is left out of that scrape.
- A process that dies takes its gauges along and nothing else: what it has counted stays in its arena, where the
  process that takes its place goes on. So counters never go backwards.
- One thread renders at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add

from prometheus_client import CollectorRegistry, generate_latest

from .arena import DECLARATIONS, Arena, Row
from .processes import Processes, cpu_seconds
from .series import Declaration, Family, read_values

_Rows = dict[str, list[float]]
"""Cells by label values, as these stand in the arena."""


class Merged:
    """Reads `arenas`, and remembers what it has read of their directories from one scrape to the next.

    `registry` is for others' collectors, and is part of the exposition.
    """

    def __init__(self, arenas: Sequence[Arena]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Processes(arenas))
        self._arenas = [(arena, dict[int, Row]()) for arena in arenas]
        self._declared: dict[str, Declaration] = {}
        self._labels: dict[tuple[str, str], str] = {}

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format 0.0.4."""
        return self.text().encode("utf-8") + generate_latest(self.registry)

    def text(self) -> str:
        """What was counted, in the same format."""
        return "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        merged: dict[str, _Rows] = {}
        for arena, known in self._arenas:
            self._merge(arena, known, merged)
        labels: dict[tuple[str, str], str] = {}
        for table, rows in merged.items():
            declaration = self._declared[table]
            for text in rows:
                key = table, text
                labels[key] = self._labels.get(key) or _labels(declaration, text)
            start = 0
            for family in declaration.families:
                end = start + family.cells
                yield f"# HELP {family.name} {family.text}\n# TYPE {family.name} {family.kind}\n"
                write = _histograms if family.kind == "histogram" else _numbers
                yield from write(family, ((labels[table, text], values[start:end]) for text, values in rows.items()))
                start = end
        self._labels = labels

    def _merge(self, arena: Arena, known: dict[int, Row], merged: dict[str, _Rows]) -> None:
        """Adds what `arena` holds."""
        found = list(arena.rows(known))
        tables = {row.number + 1: row.text for row in found if row.table == DECLARATIONS}
        for text in tables.values():
            merged.setdefault(text, {})
            if text not in self._declared:
                self._declared[text] = Declaration.read(text)
        for row in found:
            table = tables.get(row.table)
            values = arena.read(row) if table is not None else None
            if table is not None and values is not None:
                rows = merged[table]
                there = rows.get(row.text)
                merge = _MERGE[self._declared[table].merged]
                rows[row.text] = values if there is None else list(map(merge, there, values))


def retire(arena: Arena, cpu: float | None = None) -> None:
    """The process that counted in `arena` is dead: its gauges go with it, and what it has counted stays.

    Call it before the dead process is waited for, or say what processor time it had used, in seconds.
    """
    rows = list(arena.rows())
    gauges = {row.number + 1 for row in rows if row.table == DECLARATIONS and Declaration.read(row.text).is_gauge}
    ended = [row for row in rows if row.table in gauges]
    arena.release(ended, cpu_seconds(arena.pid) if cpu is None else cpu)


def _numbers(family: Family, rows: Iterable[tuple[str, list[float]]]) -> Iterator[str]:
    for labels, values in rows:
        yield f"{family.name}{{{labels}}} {_number(values[0])}\n" if labels else f"{family.name} {_number(values[0])}\n"


def _histograms(family: Family, rows: Iterable[tuple[str, list[float]]]) -> Iterator[str]:
    name = family.name
    ends = [f'le="{bound}"}}' for bound in (*family.bounds, "+Inf")]
    for labels, values in rows:
        start = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
        braces = f"{{{labels}}}" if labels else ""
        below = 0
        for end, count in zip(ends, values, strict=False):  # the last value is the sum
            below += int(count)
            yield f"{start}{end} {below}\n"
        yield f"{name}_sum{braces} {_number(values[-1])}\n{name}_count{braces} {below}\n"


def _number(value: float) -> str:
    if math.isnan(value):
        return "0"  # nobody has told yet
    return str(int(value)) if value.is_integer() else repr(value)


def _labels(declaration: Declaration, text: str) -> str:
    pairs = zip(declaration.labels, read_values(text), strict=True)
    return ",".join(f'{label}="{_escape(value)}"' for label, value in pairs)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _greatest(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else max(one, other)


def _least(one: float, other: float) -> float:
    return other if math.isnan(one) else one if math.isnan(other) else min(one, other)


_MERGE: dict[str, Callable[[float, float], float]] = {"sum": add, "max": _greatest, "min": _least}
