"""What the processes of one gateway know of each other: a page of numbers that all of them have mapped.

Each number is written by one process alone and read by any, eight aligned bytes at a time, so nothing is locked and
nothing is seen half-written. A worker's numbers are its slot's; when it dies the supervisor clears them.
"""

from __future__ import annotations

import mmap
from enum import IntEnum

_WORDS_PER_SLOT = 8  # a line of cache, so that workers do not slow each other down
_STATE, _OPEN, _LEFT = range(3)
_DRAINING, _TELEMETRY_PORT = range(2)


class State(IntEnum):
    ABSENT = 0
    STARTING = 1
    READY = 2
    ENDING = 3


class Board:
    """Made before the first fork, for `slots` workers."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._words = memoryview(mmap.mmap(-1, (slots + 1) * _WORDS_PER_SLOT * 8)).cast("Q")

    # --- of each worker ---

    def state(self, slot: int) -> State:
        return State(self._words[self._at(slot) + _STATE])

    def set_state(self, slot: int, state: State) -> None:
        self._words[self._at(slot) + _STATE] = state

    def open_connections(self, slot: int) -> int:
        """Of clients, as the worker has last written it down."""
        return self._words[self._at(slot) + _OPEN]

    def set_open_connections(self, slot: int, count: int) -> None:
        self._words[self._at(slot) + _OPEN] = count

    def left(self, slot: int) -> int:
        """Connections that the worker had to end when its time to drain was over."""
        return self._words[self._at(slot) + _LEFT]

    def set_left(self, slot: int, count: int) -> None:
        self._words[self._at(slot) + _LEFT] = count

    def clear(self, slot: int) -> None:
        """The worker of this slot is gone; what it had to end stays known."""
        self.set_state(slot, State.ABSENT)
        self.set_open_connections(slot, 0)

    @property
    def ready(self) -> int:
        """How many workers let clients in."""
        return sum(self.state(slot) is State.READY for slot in range(self.slots))

    def open_elsewhere(self, slot: int) -> int:
        """Client connections of all workers but this one."""
        return sum(self.open_connections(other) for other in range(self.slots) if other != slot)

    # --- of the supervisor and the telemetry ---

    @property
    def draining(self) -> bool:
        return bool(self._words[_DRAINING])

    @draining.setter
    def draining(self, value: bool) -> None:
        self._words[_DRAINING] = value

    @property
    def telemetry_port(self) -> int:
        """Where metrics are served; 0 while they are not."""
        return self._words[_TELEMETRY_PORT]

    @telemetry_port.setter
    def telemetry_port(self, port: int) -> None:
        self._words[_TELEMETRY_PORT] = port

    def _at(self, slot: int) -> int:
        return (slot + 1) * _WORDS_PER_SLOT
