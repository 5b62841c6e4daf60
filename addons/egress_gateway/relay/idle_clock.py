"""One timer for all tunnels of an event loop: who is idle is looked for a few times a second, and most of them never.

A tunnel stands in the slot of the moment in which it would have been idle for too long. When that comes it is asked to
look at the clock, and where it has moved in between it puts itself into a later slot. So a tunnel costs no timer, and
what moves costs nothing. Nobody is called before its time, and nobody later than `GRAIN` seconds after it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Protocol

GRAIN = 0.125
"""Seconds."""

logger = logging.getLogger(__name__)


class Idle(Protocol):
    def look_at_the_clock(self, now: float) -> None:
        """It may have been idle for too long. What it raises is logged, and stops nobody else."""


class IdleClock:
    """Times are those of the event loop, which it must be called from."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: dict[int, set[Idle]] = {}
        self._next = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return sum(map(len, self._slots.values()))

    def add(self, idle: Idle, when: float) -> int:
        """Asks `idle` at `when`; returns the slot that it stands in."""
        slot = math.ceil(when / GRAIN)
        found = self._slots.get(slot)
        if found is None:
            self._slots[slot] = {idle}
            if slot < self._next:
                self._set(slot)
        else:
            found.add(idle)
        return slot

    def discard(self, idle: Idle, slot: int) -> None:
        """Asks it no more."""
        found = self._slots.get(slot)
        if found is not None:
            found.discard(idle)
            if not found and slot != self._next:
                del self._slots[slot]

    def _set(self, slot: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = float(slot)
        self._timer = self._loop.call_at(slot * GRAIN, self._ring)

    def _ring(self) -> None:
        self._timer, self._next = None, math.inf
        now = self._loop.time()
        for slot in sorted(slot for slot in self._slots if slot * GRAIN <= now):
            for idle in self._slots.pop(slot):
                try:
                    idle.look_at_the_clock(now)
                except Exception:
                    logger.exception("egress: a tunnel failed")
        if self._slots and self._timer is None:
            self._set(min(self._slots))
