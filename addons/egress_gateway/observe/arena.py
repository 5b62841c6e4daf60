"""The memory that metrics are counted in: one writer at a time, and any number of processes that look on.

An arena is an anonymous mapping that processes share by being forked. In it are cells (doubles that are counted in) and
a directory of rows: which cells belong to which labels of which table. It knows nothing of metrics; `series` does.

The rules of this file:

- One process writes. What dies in the middle of a write leaves an arena that the next writer can take over: it finds
  every row that was whole, and goes on counting in the same cells.
- Adding to a cell is one read and one write of memory: no lock, no system call. Eight aligned bytes are never seen
  half-written.
- A row has a version: odd while it is not whole, or gone. Who looks on reads the version before and after, and leaves
  out what has changed meanwhile.
- Memory is taken from the system as it is touched; the bounds are those of the address space.
- Where there is no room for another row, that is said (`add` returns None), and what is there goes on.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ROWS = 65_536
TEXT = 24 * 1024 * 1024
CELLS = 4 * 1024 * 1024

_HEAD = 4096
_PID, _EPOCH, _ROWS_USED = range(3)
"""The words of the head."""
_CPU_BEFORE = 8
"""The head's cell: processor seconds of the writers that are gone."""

_VERSION, _TABLE, _TEXT_AT, _TEXT_SIZE, _CELL, _CELL_COUNT = range(6)
_WORDS_PER_ROW = 8
_UNIT = 32
"""Texts start at multiples of so many bytes, so that the room of one that is gone fits another."""
_SPARE = 32
"""One part in so many is kept for rows that must find room."""
NOWHERE = 0
"""The first of the cells for what found no room; they belong to no row, and nobody reads them."""
_NOWHERE_CELLS = 64
DECLARATIONS = 0
"""The table whose rows declare the tables; a table is known by the number of the row that declares it, plus one."""


@dataclass(frozen=True, slots=True)
class Row:
    """Where a row is. `number` and `version` together never mean another one."""

    number: int
    version: int
    table: int
    text: str
    cell: int
    """The first of its cells."""
    cells: int


class Arena:
    """Made by `create`, before the fork. Who counts in it calls `adopt` first."""

    def __init__(self, rows: int, text: int, cells: int) -> None:
        self._texts_from = _HEAD + rows * _WORDS_PER_ROW * 4
        cells_from = self._texts_from + text
        size = cells_from + cells * 8
        whole = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS))
        self._head = whole[:_HEAD].cast("Q")
        self._head_cells = whole[:_HEAD].cast("d")
        self._rows = whole[_HEAD : self._texts_from].cast("I")
        self._texts = whole[self._texts_from : cells_from]
        self.cells: memoryview[float] = whole[cells_from:].cast("d")
        """Where to count: `arena.cells[row.cell] += 1`."""
        self._most_rows = rows
        self._text_room = _Room(text // _UNIT)
        self._cell_room = _Room(cells, _NOWHERE_CELLS)
        self._free_rows: list[int] = []

    @classmethod
    def create(cls, *, rows: int = ROWS, text: int = TEXT, cells: int = CELLS) -> Arena:
        """An empty arena for so many rows, bytes of text and cells. `text` is rounded to whole pages."""
        return cls(rows, -(-text // mmap.PAGESIZE) * mmap.PAGESIZE, cells)

    # --- the writer ---

    def adopt(self) -> None:
        """This process is the writer from now on, and goes on where the one before it stopped."""
        self._head[_PID] = os.getpid()
        self._take_stock()

    def add(self, table: int, text: str, cells: int, *, must: bool = False) -> Row | None:
        """A new row of `cells` zeros; None where there is no room. `must` may use the last of it."""
        data = text.encode("ascii")
        units = -(-len(data) // _UNIT)
        number = self._free_row(must)
        at = None if number is None else self._text_room.take(units, must=must)
        cell = None if at is None else self._cell_room.take(cells, must=must)
        if number is None or at is None or cell is None:
            if number is not None:
                self._free_rows.append(number)
            if at is not None:
                self._text_room.give(at, units)
            return None
        self._texts[at * _UNIT : at * _UNIT + len(data)] = data
        for index in range(cell, cell + cells):
            self.cells[index] = 0.0
        words, word = self._rows, number * _WORDS_PER_ROW
        words[word + _VERSION] |= 1
        words[word + _TABLE], words[word + _TEXT_AT], words[word + _TEXT_SIZE] = table, at, len(data)
        words[word + _CELL], words[word + _CELL_COUNT] = cell, cells
        self._head[_ROWS_USED] = max(self._head[_ROWS_USED], number + 1)
        version = words[word + _VERSION] = _next(words[word + _VERSION])
        return Row(number, version, table, text, cell, cells)

    def forget(self, row: Row) -> None:
        """Takes the row away; its cells must not be counted in any more."""
        word = row.number * _WORDS_PER_ROW
        if self._rows[word + _VERSION] != row.version:
            return
        self._rows[word + _VERSION] = _next(row.version)
        self._free_rows.append(row.number)
        self._text_room.give(self._rows[word + _TEXT_AT], -(-self._rows[word + _TEXT_SIZE] // _UNIT))
        self._cell_room.give(row.cell, row.cells)

    # --- whoever looks on ---

    @property
    def pid(self) -> int:
        """The process that counts here; 0 while none does."""
        return self._head[_PID]

    @property
    def epoch(self) -> int:
        """Another number after each `release`."""
        return self._head[_EPOCH]

    @property
    def cpu_before(self) -> float:
        """Processor seconds of all writers that were released."""
        return self._head_cells[_CPU_BEFORE]

    def release(self, rows: Iterable[Row], cpu_seconds: float) -> None:
        """The writer is dead, and had used so much processor time; `rows` end with it. Called by who started it."""
        for row in rows:
            self._rows[row.number * _WORDS_PER_ROW + _VERSION] = _next(row.version)
        self._head[_PID] = 0
        self._head_cells[_CPU_BEFORE] += cpu_seconds
        self._head[_EPOCH] += 1

    def rows(self, known: dict[int, Row] | None = None) -> Iterator[Row]:
        """The rows that are whole now. `known` remembers by number, over calls, what need not be read anew."""
        words = self._rows
        for number in range(self._head[_ROWS_USED]):
            word = number * _WORDS_PER_ROW
            version = words[word]
            if version & 1 or not version:
                continue
            row = known.get(number) if known is not None else None
            if row is None or row.version != version:
                row = self._read(number, version)
                if row is None:
                    continue
                if known is not None:
                    known[number] = row
            yield row

    def read(self, row: Row) -> list[float] | None:
        """What its cells hold; None where the row is gone."""
        values: list[float] = [*self.cells[row.cell : row.cell + row.cells]]
        return values if self._rows[row.number * _WORDS_PER_ROW] == row.version else None

    # --- inside ---

    def _read(self, number: int, version: int) -> Row | None:
        """The row, unless it is no longer the one of this version."""
        word = number * _WORDS_PER_ROW
        _, table, at, size, cell, cells = self._rows[word : word + 6]
        data = bytes(self._texts[at * _UNIT : at * _UNIT + size])
        if self._rows[word] != version:
            return None
        return Row(number, version, table, data.decode("ascii"), cell, cells)

    def _free_row(self, must: bool) -> int | None:
        if self._free_rows:
            return self._free_rows.pop()
        used = self._head[_ROWS_USED]
        most = self._most_rows if must else self._most_rows - self._most_rows // _SPARE - 1
        return used if used < most else None

    def _take_stock(self) -> None:
        """Finds out what is free, from the rows alone."""
        rows = list(self.rows())
        whole = {row.number for row in rows}
        self._free_rows = [number for number in range(self._head[_ROWS_USED]) if number not in whole]
        words = self._rows
        texts = [(words[row.number * _WORDS_PER_ROW + _TEXT_AT], -(-len(row.text) // _UNIT)) for row in rows]
        self._text_room.all_but(texts)
        self._cell_room.all_but([(row.cell, row.cells) for row in rows])


class _Room:
    """Which parts of a stretch of `size` units are free. What is given back is kept by its size."""

    def __init__(self, size: int, start: int = 0) -> None:
        self._size = size
        self._start = self._next = start
        self._free: dict[int, list[int]] = {}

    def take(self, units: int, *, must: bool) -> int | None:
        """The start of so many free units; None where there are none."""
        if free := self._free.get(units):
            return free.pop()
        end = self._size if must else self._size - self._size // _SPARE
        if self._next + units <= end:
            self._next += units
            return self._next - units
        for size in sorted(self._free):
            if size > units and self._free[size]:
                at = self._free[size].pop()
                self.give(at + units, size - units)
                return at
        return None

    def give(self, at: int, units: int) -> None:
        if units:
            self._free.setdefault(units, []).append(at)

    def all_but(self, taken: list[tuple[int, int]]) -> None:
        """Everything is free but these starts and sizes."""
        self._next = self._start
        self._free = {}
        for at, units in sorted(taken):
            self.give(self._next, at - self._next)
            self._next = max(self._next, at + units)


def _next(version: int) -> int:
    """Odd becomes even and even odd; 0 is for rows that never were, and does not come back."""
    return (version + 1) & 0xFFFF_FFFF or 2
