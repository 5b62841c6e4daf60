"""Pipes for moving bytes between sockets inside the kernel: few, reused, and always empty when they change hands.

A tunnel borrows a pipe for as long as bytes are in it, so that an idle tunnel costs none, and as many tunnels as there
are connections share a handful. Where there is no pipe to be had (no descriptors left, too many in use, a system
without `splice`) `take` says None, and its caller copies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import resource
from dataclasses import dataclass

logger = logging.getLogger(__name__)

WANTED_BYTES = 1 << 20
"""Of one pipe: what an ordinary user may have (pipe-max-size). A byte costs a third more through a quarter of it."""
LEAST_BYTES = 1 << 16
"""A pipe for fewer is no cheaper than copying; Linux gives such to users who have many (pipe-user-pages-soft)."""
MOST_IN_USE = 64
"""A reader that is stuck keeps one full, and this bounds what all of them keep."""
MOST_IDLE = 16
_SHARE_OF_DESCRIPTORS = 16
"""Pipes may take one descriptor in so many; clients need theirs more."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """Both ends are non-blocking."""

    read_end: int
    write_end: int


class Pipes:
    """The pipes of one event loop."""

    def __init__(self, most_in_use: int = MOST_IN_USE, most_idle: int = MOST_IDLE) -> None:
        self._most_in_use = min(most_in_use, _descriptors() // (2 * _SHARE_OF_DESCRIPTORS))
        self._most_idle = most_idle
        self._idle: list[Pipe] = []
        self.in_use = 0
        self.available = hasattr(os, "splice")
        """Whether this system moves bytes from socket to socket at all."""
        self._said = False
        if not self.available:
            self._say("this system has no splice()")

    def take(self) -> Pipe | None:
        """An empty pipe, or None. Pair it with `give` or `drop`."""
        if not self.available or self.in_use >= self._most_in_use:
            return None
        if self._idle:
            pipe = self._idle.pop()
        else:
            made = _make(self)
            if made is None:
                return None
            pipe = made
        self.in_use += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Takes back a pipe that is empty."""
        self.in_use -= 1
        if len(self._idle) < self._most_idle:
            self._idle.append(pipe)
        else:
            _close(pipe)

    def drop(self, pipe: Pipe) -> None:
        """Takes back a pipe that has bytes in it, which nobody shall ever read."""
        self.in_use -= 1
        _close(pipe)

    def unusable(self, error: OSError) -> None:
        """The kernel does not splice these sockets: from now on everything is copied."""
        self.available = False
        self._say(f"splice() failed: {error.strerror or error}")

    def close(self) -> None:
        """Closes those that nobody uses."""
        while self._idle:
            _close(self._idle.pop())

    def _say(self, why: str) -> None:
        if not self._said:
            self._said = True
            logger.warning("egress gateway: %s; bytes of tunnels are copied, which costs more.", why)

    def __del__(self) -> None:
        self.close()


def _make(pipes: Pipes) -> Pipe | None:
    try:
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            pipes.unusable(error)
        return None
    with contextlib.suppress(PermissionError):
        fcntl.fcntl(pipe.write_end, fcntl.F_SETPIPE_SZ, WANTED_BYTES)
    if fcntl.fcntl(pipe.write_end, fcntl.F_GETPIPE_SZ) >= LEAST_BYTES:
        return pipe
    _close(pipe)
    return None


def _close(pipe: Pipe) -> None:
    os.close(pipe.read_end)
    os.close(pipe.write_end)


def _descriptors() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
