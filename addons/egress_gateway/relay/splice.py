"""A tunnel between two sockets that runs from callbacks: no task, no stream, nothing read before it can be written.

Both directions go on their own (`way.py`) until both have ended. The whole is over in one of three ways, and whoever
started it is told once: both directions ended in peace; a side was lost, and the other must be reset, so that it does
not take half of a conversation for a whole one; or nothing has moved for too long. The sockets belong to whoever
started it, and are closed by nobody here.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from enum import Enum, auto

from .poller import ENDING, FAILED, READABLE, WRITABLE, Poller, poller
from .way import Way


class Ending(Enum):
    PEACE = auto()
    LOST = auto()
    IDLE = auto()


class Splice:
    """Bytes both ways between a client's socket and a destination's, which must both be non-blocking."""

    __slots__ = ("_client", "_down", "_ended", "_last", "_poller", "_seconds", "_stalled", "_timer", "_up", "_upstream")

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        ended: Callable[[Ending, OSError | None], None],
        *,
        idle_seconds: float,
        from_client: bytes = b"",
        from_upstream: bytes = b"",
    ) -> None:
        """`from_client` and `from_upstream` have been read already. `ended` is called once, unless `stop` was."""
        self._poller: Poller = poller()
        self._client = client.fileno()
        self._upstream = upstream.fileno()
        self._up = Way(client, upstream, from_client, self._poller.pipes)
        self._down = Way(upstream, client, from_upstream, self._poller.pipes)
        self._ended: Callable[[Ending, OSError | None], None] | None = ended
        self._seconds = idle_seconds
        self._last = 0.0
        self._stalled: set[Way] = set()
        """Whose sink has not taken everything at least once, and is watched for when it does."""
        self._timer: asyncio.TimerHandle | None = None

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
        loop = asyncio.get_running_loop()
        self._last = loop.time()
        self._timer = loop.call_at(self._last + self._seconds, self._look_at_the_clock)
        try:
            self._poller.watch(self._client, self._client_changed)
            self._poller.watch(self._upstream, self._upstream_changed)
            if self._up.waiting:
                self._move(self._up)
            if self._down.waiting:
                self._move(self._down)
        except OSError:
            self.stop()
            raise

    def stop(self) -> None:
        """Moves nothing any more, and says nothing. The sockets are free to be closed."""
        self._ended = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._poller.forget(self._client)
        self._poller.forget(self._upstream)
        self._up.release()
        self._down.release()

    # --- what the kernel says ---

    def _client_changed(self, event: int) -> None:
        self._changed(event, self._up, self._down)

    def _upstream_changed(self, event: int) -> None:
        self._changed(event, self._down, self._up)

    def _changed(self, event: int, reads: Way, writes: Way) -> None:
        """A socket has changed, which `reads` has for its source and `writes` for its sink."""
        if self._ended is None:
            return
        try:
            if event & WRITABLE:
                writes.may_write = True
                if writes.waiting:
                    self._move(writes)
            if event & READABLE:
                reads.may_read = True
                if event & ENDING:
                    reads.ending = True
                    if event & FAILED and reads.done:
                        # Nobody reads there any more, so nobody would be told.
                        _raise_error(reads.source)
                self._move(reads)
        except OSError as error:
            self._end(Ending.LOST, error)
        else:
            if reads.done and writes.done:
                self._end(Ending.PEACE)

    def _move(self, way: Way) -> None:
        before = way.moved
        if way.move(self._poller.buffer):
            self._poller.again(self._go_on)
        if not way.may_write and way not in self._stalled:
            self._stalled.add(way)
            self._poller.watch_writing(self._upstream if way is self._up else self._client)
        if way.moved != before:
            self._last = asyncio.get_running_loop().time()

    def _go_on(self) -> None:
        """Takes up what was left for this turn, in both directions."""
        if self._ended is None:
            return
        try:
            self._move(self._up)
            self._move(self._down)
        except OSError as error:
            self._end(Ending.LOST, error)
        else:
            if self._up.done and self._down.done:
                self._end(Ending.PEACE)

    def _look_at_the_clock(self) -> None:
        loop = asyncio.get_running_loop()
        until = self._last + self._seconds
        if loop.time() < until:
            self._timer = loop.call_at(until, self._look_at_the_clock)
        else:
            self._end(Ending.IDLE)

    def _end(self, how: Ending, error: OSError | None = None) -> None:
        ended = self._ended
        self.stop()
        if ended is not None:
            ended(how, error)


def _raise_error(sock: socket.socket) -> None:
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
