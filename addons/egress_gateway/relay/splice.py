"""A tunnel between two sockets that runs from callbacks: no task, no stream, nothing read before it can be written.

Both directions go on their own (`way.py`) until both have ended; one that is fast is taken up once in a moment, and not
at each packet (`rate.py`). The whole is over in one of three ways, and whoever
started it (its `Owner`) is told once: both directions ended in peace; a side was lost, and the other must be reset, so
that it does not take half of a conversation for a whole one; or nothing has moved for too long. The sockets belong to
whoever started it, and are closed by nobody here.
"""

from __future__ import annotations

import asyncio
import socket
from enum import Enum, auto
from typing import Protocol

from .poller import FAILED, READABLE, UNSURE, WRITABLE, Poller, poller
from .way import Waits, Way, raise_error


class Ending(Enum):
    PEACE = auto()
    LOST = auto()
    IDLE = auto()


class Owner(Protocol):
    def ended(self, how: Ending, error: Exception | None) -> None:
        """It is over; `error` says how a side was lost. What is no OSError is a fault of our own."""


class Splice:
    """Bytes both ways between a client's socket and a destination's, which must both be non-blocking."""

    __slots__ = ("_client", "_down", "_last", "_owner", "_poller", "_seconds", "_slot", "_up", "_upstream")

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        owner: Owner,
        *,
        idle_seconds: float,
        from_client: bytes = b"",
        from_upstream: bytes = b"",
    ) -> None:
        """`from_client` and `from_upstream` have been read already. `owner` is told once that it is over, unless
        it says `stop` itself."""
        self._poller: Poller = poller()
        self._client = client.fileno()
        self._upstream = upstream.fileno()
        self._up = Way(client, upstream, from_client, self._poller.pipes)
        self._down = Way(upstream, client, from_upstream, self._poller.pipes)
        self._owner: Owner | None = owner
        self._seconds = idle_seconds
        self._last = 0.0
        self._slot = 0

    @property
    def received(self) -> int:
        """Bytes of the client that the destination's socket has taken."""
        return self._up.moved

    @property
    def sent(self) -> int:
        """Bytes of the destination that the client's socket has taken."""
        return self._down.moved

    def start(self) -> None:
        """Begins: sends what was read already, and moves what is there in the loop's next turn. Raises OSError, and is
        then stopped."""
        self._last = asyncio.get_running_loop().time()
        self._slot = self._poller.clock.add(self, self._last + self._seconds)
        try:
            self._poller.watch(self._client, self)
            self._poller.watch(self._upstream, self)
            if self._up.waiting:
                self._move(self._up)
            if self._down.waiting:
                self._move(self._down)
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """Moves nothing any more, and says nothing. The sockets are free to be closed."""
        if self._owner is None:
            return
        self._owner = None
        self._poller.clock.discard(self, self._slot)
        self._poller.forget(self._client)
        self._poller.forget(self._upstream)
        self._up.release()
        self._down.release()

    # --- what the kernel says ---

    def changed(self, descriptor: int, event: int) -> None:
        """One of the sockets has; `reads` has it for its source and `writes` for its sink."""
        if self._owner is None:
            return
        reads, writes = (self._up, self._down) if descriptor == self._client else (self._down, self._up)
        failed: Exception | None = None
        try:
            if event & WRITABLE:
                writes.may_write = True
                if writes.waiting:
                    self._move(writes)
            if event & READABLE:
                reads.may_read = True
                if event & UNSURE:
                    reads.unsure = True
                    if event & FAILED and reads.done:
                        # Nobody reads there any more, so nobody would be told.
                        raise_error(reads.source)
                self._move(reads)
        except Exception as error:  # after a fault of ours nobody knows what was moved: the same end
            failed = error
        self._end_where_over(failed)

    def _move(self, way: Way) -> None:
        if not (way.may_read or way.waiting):
            return
        before = way.moved
        more = way.move(self._poller.buffer)
        fast = False
        if way.moved != before:
            self._last = asyncio.get_running_loop().time()
            fast = way.is_fast(self._last)
        if more:
            self._poller.again(self._go_on)
            return
        if way.waiting:
            waits = Waits.TO_WRITE
        elif fast and not way.done:
            waits = Waits.A_MOMENT
            self._poller.later(self._take_what_has_gathered)
        else:
            waits = Waits.TO_READ
        if waits is not way.waits:
            way.waits = waits
            self._watch()

    def _watch(self) -> None:
        """Asks to be told of what a direction waits for, and of nothing else: to be told is what costs."""
        up, down = self._up.waits, self._down.waits
        self._poller.watch_for(self._client, reading=up is Waits.TO_READ, writing=down is Waits.TO_WRITE)
        self._poller.watch_for(self._upstream, reading=down is Waits.TO_READ, writing=up is Waits.TO_WRITE)

    def _take_what_has_gathered(self) -> None:
        for way in (self._up, self._down):
            if way.waits is Waits.A_MOMENT:
                way.may_read = True
        self._go_on()

    def _go_on(self) -> None:
        """Takes up what was left for this turn, in both directions."""
        if self._owner is None:
            return
        failed: Exception | None = None
        try:
            self._move(self._up)
            self._move(self._down)
        except Exception as error:
            failed = error
        self._end_where_over(failed)

    def _end_where_over(self, failed: Exception | None) -> None:
        """Not while an exception is handled: whoever is told goes on at once, and would do so in the middle of that."""
        if failed is not None:
            self._end(Ending.LOST, failed)
        elif self._up.done and self._down.done:
            self._end(Ending.PEACE)

    def look_at_the_clock(self, now: float) -> None:
        """Ends it where nothing has moved for too long."""
        until = self._last + self._seconds
        if now < until:
            self._slot = self._poller.clock.add(self, until)
        else:
            self._end(Ending.IDLE)

    def _end(self, how: Ending, error: Exception | None = None) -> None:
        owner = self._owner
        self.stop()
        if owner is not None:
            owner.ended(how, error)
