"""One direction of a tunnel between two sockets: what is there is moved, what does not fit waits, and the end follows.

Small pieces are copied through a buffer, since that is cheaper than two trips through a pipe; where a read fills the
buffer, more is coming, and it goes through a pipe inside the kernel without being copied. The rules of this file:

- Nothing is read while something waits to be written, so what waits is bounded: one buffer, or one pipe.
- A pipe is held only while bytes are in it.
- The end of the source is passed on after its last byte, as the end of one direction (half-close).
- Errors are raised, whichever side they come from. Whoever catches one resets both sides.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import termios
from enum import Enum, auto

from .pipes import Pipe, Pipes
from .rate import LEAST, Rate

TURN_BYTES = 1 << 20
"""Moved at a stretch before others have their turn: some 300 µs."""
COPIED_BYTES = 1 << 15
"""What one read of less than this brings is copied."""
PIPED_BYTES = 1 << 20
"""Moved at once at most; a pipe takes no more anyway."""
_NOTHING = bytes(4)  # an int, as FIONREAD writes it
_FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)


class Waits(Enum):
    """For what a direction waits that can go no further."""

    TO_READ = auto()
    """Until something comes."""
    TO_WRITE = auto()
    """Until the sink has room for what was read already."""
    A_MOMENT = auto()
    """Until what comes fast has gathered (`rate.py`)."""


class Way:
    """From `source` to `sink`, which are non-blocking."""

    __slots__ = (
        "_in_pipe",
        "_pipe",
        "_pipes",
        "_rest",
        "_sink",
        "_wholesale",
        "done",
        "may_read",
        "may_write",
        "moved",
        "rate",
        "source",
        "unsure",
        "waits",
    )

    def __init__(self, source: socket.socket, sink: socket.socket, first: bytes, pipes: Pipes) -> None:
        """`first` was read of the source already, and goes before all else."""
        self.source = source
        self._sink = sink
        self._rest: bytes | memoryview = first
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._in_pipe = 0
        self._wholesale = False
        self.may_read = False
        """The source may have something: it has said so, or nobody has listened for a moment; and it was not found
        empty since."""
        self.may_write = True
        self.waits = Waits.TO_READ
        """As the poller was told for the last time."""
        self.rate: Rate | None = None
        """Of a direction that has moved enough to be fast."""
        self.unsure = False
        """Only EAGAIN says that the source has nothing more, see `poller.UNSURE`."""
        self.done = False
        """The end has been passed on."""
        self.moved = 0
        """Bytes that the sink has taken."""

    @property
    def waiting(self) -> bool:
        """Whether something was read that the sink has not taken yet."""
        return bool(self._in_pipe or self._rest)

    def is_fast(self, now: float) -> bool:
        """Whether what comes should be left to gather; to be asked whenever something has moved."""
        if self.rate is None:
            if self.moved < LEAST:
                return False
            self.rate = Rate()
        return self.rate.look(now, self.moved)

    def move(self, buffer: memoryview) -> bool:
        """Moves what can be moved now; returns whether more is left for the next turn. Raises OSError."""
        enough = self.moved + TURN_BYTES
        while not self.done:
            if not self._write():
                return False
            if not self.may_read or self.moved >= enough:
                break
            if self._wholesale and (self._pipe is not None or self._take_pipe()):
                self._read_into_pipe()
            else:
                self._read_into(buffer)
        self._give_pipe()
        return self.may_read and not self.done

    def release(self) -> None:
        """Lets go of what it holds; nothing is moved afterwards."""
        self.done = True
        self._rest = b""
        if self._pipe is not None and self._in_pipe:
            self._pipes.drop(self._pipe)
            self._pipe, self._in_pipe = None, 0
        self._give_pipe()

    # --- writing ---

    def _write(self) -> bool:
        """Writes what waits; returns whether nothing does any more."""
        if not self.may_write:
            return not self.waiting
        try:
            if self._in_pipe:
                self._write_from_pipe()
            if self._rest:
                self._write_rest()
        except BlockingIOError:
            self.may_write = False
        return not self.waiting

    def _write_rest(self) -> None:
        sent = self._sink.send(self._rest)
        self.moved += sent
        self._rest = self._rest[sent:]
        self.may_write = not self._rest

    def _write_from_pipe(self) -> None:
        assert self._pipe is not None
        try:
            count = os.splice(self._pipe.read_end, self._sink.fileno(), self._in_pipe, flags=_FLAGS)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._pipes.unusable(error)
            self._rest = os.read(self._pipe.read_end, self._in_pipe)
            count = len(self._rest)
            self.moved -= count  # it is counted when the sink has taken it
        self._in_pipe -= count
        self.moved += count
        self.may_write = not self._in_pipe

    # --- reading ---

    def _read_into(self, buffer: memoryview) -> None:
        most = len(buffer) if self._wholesale else COPIED_BYTES
        try:
            count = self.source.recv_into(buffer, most)
        except BlockingIOError:
            self.may_read = self._wholesale = False
            return
        if count == 0:
            self._pass_end_on()
            return
        self._wholesale = count == most
        if count < most and not self.unsure:
            self.may_read = False  # the kernel tells when more comes
        try:
            sent = self._sink.send(buffer[:count])
        except BlockingIOError:
            sent = 0
        self.moved += sent
        if sent < count:
            self.may_write = False
            self._rest = bytes(buffer[sent:count])  # copied, since the buffer is everybody's

    def _read_into_pipe(self) -> None:
        assert self._pipe is not None
        try:
            count = os.splice(self.source.fileno(), self._pipe.write_end, PIPED_BYTES, flags=_FLAGS)
        except BlockingIOError:
            if self.unsure:
                self._wholesale = False  # it says the same where urgent data stands, and there may be more behind that
            else:
                self.may_read = False
            return
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._pipes.unusable(error)
            self._give_pipe()
            return
        if count == 0:
            self._wholesale = False  # whether this is the end only reading tells
            return
        self._in_pipe = count
        self._wholesale = count >= COPIED_BYTES
        if not self.unsure:
            self.may_read = _has_more(self.source)

    def _pass_end_on(self) -> None:
        # Of an end and a reset that come together the kernel tells once, and a read hears of the end alone.
        raise_error(self.source)
        self.done = True
        try:
            self._sink.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from None

    # --- pipes ---

    def _take_pipe(self) -> bool:
        self._pipe = self._pipes.take()
        return self._pipe is not None

    def _give_pipe(self) -> None:
        if self._pipe is not None and not self._in_pipe:
            self._pipes.give(self._pipe)
            self._pipe = None


def raise_error(sock: socket.socket) -> None:
    """Raises the OSError that `sock` has, if any."""
    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


def _has_more(source: socket.socket) -> bool:
    """Whether bytes are there; of an end the kernel tells by itself. A pipe that took less than was asked for may have
    run out of pages, and the source not of bytes; asking is cheaper than an exception."""
    return fcntl.ioctl(source, termios.FIONREAD, _NOTHING) != _NOTHING
