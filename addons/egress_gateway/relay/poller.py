"""One epoll for all connections of an event loop: a socket is registered once and tells of every change, and of resets.

asyncio's `add_reader` and `add_writer` would be taken off and put on again with every wait, cost an object or three a
socket and the work of the loop for each event, and on uvloop say nothing more once a socket has had an error. So the
relay's sockets stand in an epoll of their own, edge-triggered, and only *its* descriptor is the event loop's.

The rules of this file:

- A watcher is told what has changed since it was told the last time (`READABLE`, `WRITABLE`, `FAILED`), and remembers
  it until the kernel says EAGAIN, takes less than it was given, or gives less than was asked for and has not said
  `UNSURE`.
- A watcher does a bounded amount of work. What is left it asks to do `again`, and others have their turn first.
- Nothing here raises because of what one watcher did: one connection must not stop the others.
- Nobody is told what was said of a descriptor that had the same number before.
- What is held in a turn is sent before the turn is over, whatever happened in it.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable, Iterable
from typing import Protocol

from .idle_clock import IdleClock
from .pipes import Pipes

logger = logging.getLogger(__name__)

READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
"""Nothing more is going to come than what is there."""
UNSURE = ENDING | select.EPOLLPRI
"""A read that gets less than it asked for has not emptied the socket: an end follows, or the read stopped at urgent
data (tcp(7)), and nothing more need come that the kernel would tell of."""
FAILED = select.EPOLLERR

_COMES = select.EPOLLIN | select.EPOLLPRI
_ALWAYS = select.EPOLLRDHUP | select.EPOLLET  # and errors, of which the kernel always tells
_EVENTS_A_TURN = 64
HELD_FROM = 2
"""Events of a turn from which on what is written `soon` waits for the others."""
MOMENT = 0.001
"""Seconds that `later` waits at most; an event loop waits for no less."""
BUFFER_BYTES = 1 << 16


class Watcher(Protocol):
    def changed(self, descriptor: int, event: int) -> None:
        """What has changed of one of its descriptors. What it raises is logged, and stops nobody else."""


class Holder(Protocol):
    def send_held(self) -> None:
        """Sends what it holds. What it raises is logged, and stops nobody else."""


class Poller:
    """The sockets of one event loop, and what they share: pipes, a clock, and a buffer for what is copied."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Watcher] = {}
        self._new: set[int] = set()
        """Descriptors that are watched since this turn began: what is still to be said is of others."""
        self._holders: list[Holder] | None = None
        """Who has something to send when this turn is over; None where nobody would have to wait for others."""
        self._again: dict[Callable[[], None], None] = {}
        self._later: dict[Callable[[], None], None] = {}
        self.pipes = Pipes()
        self.clock = IdleClock(loop)
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        loop.add_reader(self._epoll.fileno(), self._turn)

    def close(self) -> None:
        """Its loop is closed."""
        self._epoll.close()
        self.pipes.close()

    def __len__(self) -> int:
        return len(self._watchers)

    def watch(self, descriptor: int, watcher: Watcher, *, writing: bool = False) -> None:
        """Tells `watcher` of what has come, and of when something can be written where that is asked for; at first of
        what is so already. Whoever was told before is told no more. Raises OSError.
        """
        events = _ALWAYS | _COMES | writing * select.EPOLLOUT
        if descriptor in self._watchers:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
            self._new.add(descriptor)
        self._watchers[descriptor] = watcher

    def watch_for(self, descriptor: int, *, reading: bool, writing: bool) -> None:
        """Tells from now on of what has come, or when something can be written again; at first of what is so already.

        Who does not want to read should say so: the kernel tells of each packet that comes. Urgent data is not asked
        for then, or the kernel would wake us for each packet to see whether it is that.
        """
        self._epoll.modify(descriptor, _ALWAYS | reading * _COMES | writing * select.EPOLLOUT)

    def forget(self, descriptor: int) -> None:
        """Tells nobody any more; before the descriptor is closed."""
        if self._watchers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def hold(self, holder: Holder) -> bool:
        """Has `holder` send what it holds when everybody was told of this turn's changes; False where it should send at
        once itself.

        To send wakes whoever it is for. Where that is one process for many connections, as an origin is, it would be
        woken for each message and sleep again before the next.
        """
        if self._holders is None:
            return False
        self._holders.append(holder)
        return True

    def again(self, callback: Callable[[], None]) -> None:
        """Calls `callback` soon and once, however often it was asked for, after others have had their turn."""
        if not self._again:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._again[callback] = None

    def later(self, callback: Callable[[], None]) -> None:
        """Calls `callback` when the moment that has begun is over, in a `MOMENT` at most, and once, however often it
        was asked for."""
        if not self._later:
            asyncio.get_running_loop().call_later(MOMENT, self._after_a_moment)
        self._later[callback] = None

    def _turn(self) -> None:
        watchers, new = self._watchers, self._new
        events = self._epoll.poll(0, _EVENTS_A_TURN)
        new.clear()
        if len(events) >= HELD_FROM:
            self._holders = []
        try:
            for descriptor, event in events:
                watcher = watchers.get(descriptor)
                if watcher is not None and descriptor not in new:
                    try:
                        watcher.changed(descriptor, event)
                    except Exception:
                        logger.exception("egress: a connection failed")
        finally:
            holders, self._holders = self._holders, None
            for holder in holders or ():
                try:
                    holder.send_held()
                except Exception:
                    logger.exception("egress: a connection failed")

    def _go_on(self) -> None:
        waiting, self._again = self._again, {}
        _call(waiting)

    def _after_a_moment(self) -> None:
        waiting, self._later = self._later, {}
        _call(waiting)


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        try:
            callback()
        except Exception:
            logger.exception("egress: a connection failed")


_POLLERS: dict[asyncio.AbstractEventLoop, Poller] = {}


def poller() -> Poller:
    """The running event loop's. Raises OSError where there is no descriptor for it."""
    loop = asyncio.get_running_loop()
    found = _POLLERS.get(loop)
    return _new_poller(loop) if found is None else found


def _new_poller(loop: asyncio.AbstractEventLoop) -> Poller:
    for other in [other for other in _POLLERS if other.is_closed()]:
        _POLLERS.pop(other).close()
    made = _POLLERS[loop] = Poller(loop)
    return made
