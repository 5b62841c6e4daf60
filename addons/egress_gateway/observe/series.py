"""Counters, gauges and histograms, as rows of cells in an arena.

prometheus_client's own take a lock for each update and 15 µs for each line of a scrape, which at a few hundred rules
holds the interpreter for longer than a request may take. These are plain doubles, which other processes can read.

The rules of this file:

- One process counts in an arena, in one thread. Who reads sees each number as it was at some moment.
- A row is found once, by its label values, and then kept by whoever counts in it.
- Families with the same labels share a table: what is counted together is found together.
- Values of labels come from a bounded set. Should they not, a table with a `limit` counts the rest as `other`; so does
  one whose arena is full.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from .arena import DECLARATIONS, NOWHERE, Arena, Row

_LOG = logging.getLogger(__name__)
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Family:
    """All series of one name. A histogram has `bounds`; its cells are the counts between them, then the sum."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    bounds: tuple[float, ...] = ()

    @property
    def cells(self) -> int:
        return len(self.bounds) + 2 if self.kind == "histogram" else 1


@dataclass(frozen=True, slots=True)
class Declaration:
    """What whoever reads an arena has to know of a table."""

    families: tuple[Family, ...]
    labels: tuple[str, ...]
    merged: Literal["sum", "max", "min"] = "sum"
    """What the processes of one gateway say together. NaN is for "not told yet", and does not count."""

    @property
    def is_gauge(self) -> bool:
        """Whether it says how things are with a process, rather than what that has done. A table is all of one sort."""
        return self.families[0].kind == "gauge"

    def write(self) -> str:
        return _encode(asdict(self))

    @classmethod
    def read(cls, text: str) -> Declaration:
        read = json.loads(text)
        families = tuple(Family(**each | {"bounds": tuple(each["bounds"])}) for each in read["families"])
        return cls(families, tuple(read["labels"]), read["merged"])


class Table:
    """The rows of families that share their labels. With what the arena has of them already."""

    def __init__(self, arena: Arena, declaration: Declaration, *, limit: int | None = None, start: float = 0.0) -> None:
        self.labels = declaration.labels
        self.cells = arena.cells
        self.width = sum(family.cells for family in declaration.families)
        self._arena = arena
        self._limit = limit
        self._start = start
        self._full = False
        text = declaration.write()
        declared = next((row for row in arena.rows() if row.table == DECLARATIONS and row.text == text), None)
        declared = declared or arena.add(DECLARATIONS, text, 0, must=True)
        if declared is None:
            raise MemoryError("the arena has no room for the metrics' names")
        self._number = declared.number + 1
        there = [row for row in arena.rows() if row.table == self._number]
        if declaration.is_gauge:
            for row in there:
                arena.forget(row)  # how things were with the process before this one
            there = []
        self._rows = {read_values(row.text): row for row in there}

    def row(self, *values: str) -> int:
        """The first cell of the row with these label values, made if there is none. Keep it rather than ask anew."""
        found = self._rows.get(values)
        return found.cell if found is not None else self._make(values)

    def keep(self, wanted: Callable[[tuple[str, ...]], bool]) -> None:
        """Forgets the rows whose label values are not `wanted`; their cells must not be counted in any more."""
        for values in [values for values in self._rows if not wanted(values)]:
            self._arena.forget(self._rows.pop(values))

    def _make(self, values: tuple[str, ...]) -> int:
        if len(values) != len(self.labels):
            raise ValueError(f"{self.labels} are {len(self.labels)} labels, not {len(values)}")
        if self._limit is None or len(self._rows) < self._limit:
            made = self._add(values)
            if made is not None:
                return made.cell
        others = ("other",) * len(values)
        found = self._rows.get(others) or self._add(others, must=True)
        return found.cell if found is not None else NOWHERE

    def _add(self, values: tuple[str, ...], *, must: bool = False) -> Row | None:
        made = self._arena.add(self._number, _encode(values), self.width, must=must)
        if made is not None:
            self._rows[values] = made
            if self._start:
                self.cells[made.cell] = self._start
        elif not self._full:
            self._full = True
            _LOG.warning("metrics: there is no room for more series; the rest is counted as `other`")
        return made


def read_values(text: str) -> tuple[str, ...]:
    """The label values of a row, as they stand in the arena."""
    return tuple(json.loads(text))


class Number:
    """One counter or gauge."""

    __slots__ = ("at", "cells")

    def __init__(self, cells: memoryview[float], at: int) -> None:
        self.cells, self.at = cells, at

    @property
    def value(self) -> float:
        return self.cells[self.at]

    @value.setter
    def value(self, value: float) -> None:
        self.cells[self.at] = value

    def add(self, amount: float) -> None:
        self.cells[self.at] += amount


class Histogram:
    __slots__ = ("at", "bounds", "cells", "sum_at")

    def __init__(self, cells: memoryview[float], at: int, bounds: Sequence[float]) -> None:
        self.cells, self.at, self.bounds = cells, at, bounds
        self.sum_at = at + len(bounds) + 1

    def observe(self, value: float) -> None:
        cells = self.cells
        cells[self.at + bisect_left(self.bounds, value)] += 1.0
        cells[self.sum_at] += value


class Numbers(Table):
    """A table of one family of counters or gauges."""

    def __init__(self, arena: Arena, declaration: Declaration, *, limit: int | None = None, start: float = 0.0) -> None:
        super().__init__(arena, declaration, limit=limit, start=start)
        self._found: dict[tuple[str, ...], Number] = {}

    def at(self, *values: str) -> Number:
        """The series with these label values, made if there is none."""
        found = self._found.get(values)
        if found is None:
            found = self._found[values] = Number(self.cells, self.row(*values))
        return found

    def keep(self, wanted: Callable[[tuple[str, ...]], bool]) -> None:
        super().keep(wanted)
        self._found.clear()


class Histograms(Table):
    """A table of one family of histograms."""

    def __init__(self, arena: Arena, declaration: Declaration, *, limit: int | None = None) -> None:
        super().__init__(arena, declaration, limit=limit)
        (family,) = declaration.families
        self._bounds = family.bounds
        self._found: dict[tuple[str, ...], Histogram] = {}

    def at(self, *values: str) -> Histogram:
        """The series with these label values, made if there is none."""
        found = self._found.get(values)
        if found is None:
            found = self._found[values] = Histogram(self.cells, self.row(*values), self._bounds)
        return found

    def keep(self, wanted: Callable[[tuple[str, ...]], bool]) -> None:
        super().keep(wanted)
        self._found.clear()
