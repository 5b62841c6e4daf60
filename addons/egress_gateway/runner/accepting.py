"""Clients, from a listening socket to the one who serves them; no more of them than there are descriptors for.

The rules of this file:

- A client is taken only where there is room for it and for the way on: each connection costs two descriptors, and some
  are kept for everything else (rules, logs, names, pipes). Who comes when there is no room is told so in HTTP, in modes
  where a client would understand that, and let go.
- The system may run out all the same (another limit, another process). Listening then pauses for a moment, since the
  loop would otherwise be told again and again of clients that cannot be accepted; one of them is turned away by a
  descriptor that is kept for this.
- That there is no room is said once a minute, not once a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

logger = logging.getLogger(__name__)

RESERVE = 64
"""Descriptors that no client gets."""
PER_CONNECTION = 2
_AT_ONCE = 64
"""Clients that are accepted before others have their turn."""
_LAST = 4096
"""Clients that are accepted before a listening socket is closed, which would cut them off."""
_PAUSE = 0.1
_SAY_EVERY = 60.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

type Serve = Callable[[socket.socket, tuple[str, int], str], Coroutine[Any, Any, None]]
type Refuse = Callable[[socket.socket, tuple[str, int], str], None]


class Room:
    """Whether there is room for another client.

    `here` and `elsewhere` tell how many connections are open in this process and in the others, `most` is the bound for
    all of them together (0: none), `limit` that of this process's open files.
    """

    def __init__(
        self, here: Callable[[], int], elsewhere: Callable[[], int] = lambda: 0, most: int = 0, limit: int | None = None
    ) -> None:
        self._open = here
        self._elsewhere = elsewhere
        self._most = most
        self.limit = limit or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        reserve = min(RESERVE, self.limit // 4)
        # The kernel gives the lowest number that is free, so a high one says that those below are in use.
        self._highest = self.limit - reserve
        self.connections = max(1, (self._highest - _in_use()) // PER_CONNECTION)
        self._said = -_SAY_EVERY

    def has(self, sock: socket.socket) -> bool:
        """For the client of `sock`, which has been accepted."""
        here = self._open()
        if self._most and here + self._elsewhere() >= self._most:
            return False
        return sock.fileno() < self._highest and here < self.connections

    def say(self) -> None:
        """Tells the operator, now and then."""
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        here, elsewhere = self._open(), self._elsewhere()
        if self._most and here + elsewhere >= self._most:
            why = f"egress_max_connections is {self._most}"
        else:
            why = f"a process may have {self.limit} open files, raise the limit: ulimit -n"
        logger.warning(
            "egress gateway: no room for more clients: %d connections are open; new ones are refused (%s).",
            here + elsewhere,
            why,
        )


class Acceptor:
    """Accepts on `listening`, which is its own, from the moment it is made, until `close`."""

    def __init__(self, listening: socket.socket, mode: str, room: Room, serve: Serve, refuse: Refuse) -> None:
        self._listening = listening
        self._kind = int(listening.family), int(listening.type), listening.proto
        # What `accept` is made of; it turns numbers into names of families for each client.
        self._accept_one: Callable[[], tuple[int, Any]] = listening._accept  # type: ignore[attr-defined]  # private
        self._mode = mode
        self._room = room
        self._serve = serve
        self._refuse = refuse
        self._tasks: set[asyncio.Task[None]] = set()
        self._spare: int | None = _open_spare()
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        self._loop.add_reader(listening.fileno(), self._accept)

    def close(self) -> None:
        """Stops listening. Who has been let in by the system already is still served."""
        if self._listening.fileno() < 0:
            return
        if self._paused is None:
            self._accept(most=_LAST)
        self._stop_pausing()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()
        self._give_spare()

    def _accept(self, most: int = _AT_ONCE) -> None:
        for _ in range(most):
            try:
                descriptor, peer = self._accept_one()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._turn_away()
                    return
                continue  # the client is gone again
            sock = socket.socket(*self._kind, descriptor)
            try:
                self._take(sock, peer[:2])
            except Exception:
                logger.exception("egress gateway: a client could not be taken")
                sock.close()

    def _take(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        if not self._room.has(sock):
            self._room.say()
            self._refuse(sock, peer, self._mode)
            return
        task = self._loop.create_task(self._serve(sock, peer, self._mode))
        if not task.done():
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _turn_away(self) -> None:
        """There is no descriptor left at all."""
        self._room.say()
        self._give_spare()
        with contextlib.suppress(OSError):
            self._listening.accept()[0].close()
        self._spare = _open_spare()
        self._loop.remove_reader(self._listening.fileno())
        self._paused = self._loop.call_later(_PAUSE, self._go_on)

    def _give_spare(self) -> None:
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    def _stop_pausing(self) -> None:
        if self._paused is not None:
            self._paused.cancel()

    def _go_on(self) -> None:
        self._paused = None
        self._spare = _open_spare() if self._spare is None else self._spare
        self._loop.add_reader(self._listening.fileno(), self._accept)


def _open_spare() -> int | None:
    """None where somebody else was quicker."""
    try:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None


def _in_use() -> int:
    return len(os.listdir("/proc/self/fd"))
