"""One epoll for all tunnels of an event loop: a socket is registered once and tells of every change, and of resets.

asyncio's `add_reader` and `add_writer` would be taken off and put on again with every wait, cost an object or three a
socket, and on uvloop say nothing more once a socket has had an error. So the tunnels' sockets stand in an epoll of
their own, edge-triggered, and only *its* descriptor is the event loop's.

The rules of this file:

- A watcher is told what has changed since it was told the last time (`READABLE`, `WRITABLE`, `FAILED`), and remembers
  it until the kernel says EAGAIN.
- A watcher does a bounded amount of work. What is left it asks to do `again`, and others have their turn first.
- Nothing here raises because of what one watcher did: one tunnel must not stop the others.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

from .idle_clock import IdleClock
from .pipes import Pipes

logger = logging.getLogger(__name__)

READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITABLE = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
"""Nothing more is going to come than what is there."""
FAILED = select.EPOLLERR

_ALWAYS = select.EPOLLRDHUP | select.EPOLLET  # and errors, of which the kernel always tells
_EVENTS_A_TURN = 64
BUFFER_BYTES = 1 << 16


class Watcher(Protocol):
    def changed(self, descriptor: int, event: int) -> None:
        """What has changed of one of its descriptors. What it raises is logged, and stops nobody else."""


class Poller:
    """The sockets of one event loop's tunnels, and what they share: pipes, a clock, and a buffer for what is copied."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._watchers: dict[int, Watcher] = {}
        self._again: dict[Callable[[], None], None] = {}
        self.pipes = Pipes()
        self.clock = IdleClock(loop)
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        loop.add_reader(self._epoll.fileno(), self._turn)

    def __len__(self) -> int:
        return len(self._watchers)

    def watch(self, descriptor: int, watcher: Watcher) -> None:
        """Tells `watcher` of what has come, at first of what is there already. Raises OSError."""
        self._epoll.register(descriptor, select.EPOLLIN | _ALWAYS)
        self._watchers[descriptor] = watcher

    def watch_for(self, descriptor: int, *, reading: bool, writing: bool) -> None:
        """Tells from now on of what has come, or when something can be written again; at first of what is so already.

        Who does not want to read should say so: the kernel tells of each packet that comes.
        """
        self._epoll.modify(descriptor, _ALWAYS | reading * select.EPOLLIN | writing * select.EPOLLOUT)

    def forget(self, descriptor: int) -> None:
        """Tells nobody any more; before the descriptor is closed."""
        if self._watchers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def again(self, callback: Callable[[], None]) -> None:
        """Calls `callback` soon and once, however often it was asked for, after others have had their turn."""
        if not self._again:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._again[callback] = None

    def _turn(self) -> None:
        watchers = self._watchers
        for descriptor, event in self._epoll.poll(0, _EVENTS_A_TURN):
            watcher = watchers.get(descriptor)
            if watcher is not None:
                try:
                    watcher.changed(descriptor, event)
                except Exception:
                    logger.exception("egress: a tunnel failed")

    def _go_on(self) -> None:
        waiting, self._again = self._again, {}
        for callback in waiting:
            try:
                callback()
            except Exception:
                logger.exception("egress: a tunnel failed")


_POLLERS: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def poller() -> Poller:
    """The running event loop's. Raises OSError where there is no descriptor for it."""
    loop = asyncio.get_running_loop()
    found = _POLLERS.get(loop)
    if found is None:
        found = _POLLERS[loop] = Poller(loop)
    return found
