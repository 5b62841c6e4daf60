"""What one client may have of the gateway at a time, and how often: counted by client address.

One process counts for itself. Several processes of one gateway count together, in memory that they share by being
forked: a limit holds for the gateway, whichever of them serves the client.

The rules of this file:

- What this process counts is exact. Of the others it reads, for each client, what they have counted at two places that
  the client's hash points to, and believes the smaller sum. Where two clients share both places, each may be taken to
  have what the other has: the error is always towards refusing, and grows with nothing but the number of clients.
- Nobody can choose to share the places of another: where they are hangs on the secret that Python hashes strings by,
  which forked processes have in common.
- Each process writes numbers of its own, next to those of the others: no lock, no system call, no memory that grows.
- What a dead process has counted is taken back by `clear`, and at the latest when the next one joins in its place.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Protocol

from .turns import Buckets, SharedBuckets, Turns

_PLACES = 16_384  # a power of two
_MASK = _PLACES - 1


class Counts(Protocol):
    """How much of something each client has."""

    def enter(self, client: str) -> int:
        """One more; how many it has now, this one included. Pair it with `leave`."""

    def leave(self, client: str) -> None: ...

    def __len__(self) -> int:
        """Clients that have something of this process."""


class OwnCounts:
    """Of one process that counts for itself."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def enter(self, client: str) -> int:
        count = self._counts[client] = self._counts.get(client, 0) + 1
        return count

    def leave(self, client: str) -> None:
        if self._counts[client] > 1:
            self._counts[client] -= 1
        else:
            del self._counts[client]


class SharedCounts:
    """Of one process among several. `cells` has two tables of places, with a number for each process in a place."""

    def __init__(self, cells: memoryview[int], processes: int, number: int) -> None:
        self._counts: dict[str, int] = {}
        self._cells = cells
        self._processes = processes
        self._number = number
        self._second = _PLACES * processes

    def __len__(self) -> int:
        return len(self._counts)

    def enter(self, client: str) -> int:
        count = self._counts[client] = self._counts.get(client, 0) + 1
        cells, size, number = self._cells, self._processes, self._number
        hashed = hash(client)
        one = (hashed & _MASK) * size
        two = (hashed >> 32 & _MASK) * size + self._second
        # First said, then asked, so that of two that enter at once one sees the other.
        cells[one + number] = mine_here = cells[one + number] + 1
        cells[two + number] = mine_there = cells[two + number] + 1
        here = sum(cells[one : one + size]) - mine_here
        there = sum(cells[two : two + size]) - mine_there
        return count + min(here, there)

    def leave(self, client: str) -> None:
        if self._counts[client] > 1:
            self._counts[client] -= 1
        else:
            del self._counts[client]
        hashed = hash(client)
        self._cells[(hashed & _MASK) * self._processes + self._number] -= 1
        self._cells[(hashed >> 32 & _MASK) * self._processes + self._second + self._number] -= 1


@dataclass(frozen=True, slots=True)
class Quotas:
    """All that is counted by client."""

    connections: Counts
    lookups: Counts
    """Names being resolved."""
    name_server_connections: Counts
    questions: Turns
    """Questions to the name server that are answered."""
    refusals: Turns
    """Questions that come too often and are refused in so many words."""

    @classmethod
    def own(cls) -> Quotas:
        """Of one process that counts for itself."""
        return cls(OwnCounts(), OwnCounts(), OwnCounts(), Buckets(), Buckets())


class SharedQuotas:
    """The memory that `processes` count in together. Make it before they are forked."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._joined = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self._counts = [_memory(2 * _PLACES * processes * 4).cast("I") for _ in range(3)]
        self._turns = [_memory(2 * _PLACES * 8).cast("d") for _ in range(2)]
        if processes > len(self._joined):
            raise ValueError(f"{processes} processes are more than can count together ({len(self._joined)})")

    def join(self, number: int) -> Quotas:
        """What process `number` counts with, from 0; starts with nothing, whatever the one before it has left."""
        if self._joined[number]:
            self.clear(number)
        self._joined[number] = 1
        connections, lookups, name_server = (SharedCounts(cells, self._processes, number) for cells in self._counts)
        questions, refusals = (SharedBuckets(cells) for cells in self._turns)
        return Quotas(connections, lookups, name_server, questions, refusals)

    def clear(self, number: int) -> None:
        """Process `number` is dead: its clients have nothing of it any more."""
        nothing = memoryview(bytes(2 * _PLACES * 4)).cast("I")
        for cells in self._counts:
            cells[number :: self._processes] = nothing
        self._joined[number] = 0


def _memory(size: int) -> memoryview:
    return memoryview(mmap.mmap(-1, size))
