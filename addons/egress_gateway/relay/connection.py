"""One TCP connection as reader and writer in one, on a bare non-blocking socket.

asyncio's streams copy every byte twice and turn the loop three times for a message. The relay reads when it wants
to, writes at once what the kernel takes, and asks the loop only when it has to wait. See
docs/decisions/0016-sockets-instead-of-streams.md.

The rules of this file:

- The socket has one owner, this object, until `hand_over`. Nothing else reads, writes or closes it.
- A wait that is cancelled has read nothing: bytes are taken out of the kernel by who gets them, never in advance.
- The loop watches the descriptor for reading as long as somebody reads now and then: an event that nobody waits for
  switches it off, so that a level-triggered loop cannot spin.
- Nobody waits before the kernel has said that there is nothing: uvloop tells of an error once and then no more, so
  bytes and a reset that come together would otherwise leave the second read waiting for ever. asyncio's own loop tells
  again and again, so there it is enough to have read less than one would have taken.
- The loop forgets a descriptor before it is closed: uvloop ends the process when a number it still watches is reused.
- What was not sent yet is kept in order; `drain` waits until all of it has gone, so memory is bounded by one write.
- Nobody is starved: after a number of reads that did not have to wait, a read lets the others have their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Callable

from .waiting import Waiting

CHUNK = 65_536
_READS_A_TURN = 16
NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER's value for an end at once, with RST."""
_IN_PEACE = struct.pack("ii", 0, 0)
_TCP_CLOSE = 7  # include/net/tcp_states.h

type Buffer = bytes | bytearray | memoryview


class Connection:
    """`sock` must be connected (or connecting, see `connected`) and becomes this object's.

    `shared` says that somebody else holds the same connection by another descriptor, so that closing this one alone
    would not tell the peer. `already_read` is what comes before the next byte of the socket.
    """

    __slots__ = (
        "_already_read",
        "_closed",
        "_drained",
        "_ends",
        "_error",
        "_fd",
        "_glance",
        "_loop",
        "_readable",
        "_reader",
        "_released",
        "_shared",
        "_tells_again",
        "_turns",
        "_unsent",
        "_watched",
        "sock",
    )

    def __init__(self, sock: socket.socket, *, shared: bool = False, already_read: bytes = b"") -> None:
        sock.setblocking(False)
        self.sock = sock
        self._shared = shared
        if not shared:
            # Should this process be killed, the kernel closes for it: what was cut off must not look like a whole.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._loop = asyncio.get_running_loop()
        self._fd = sock.fileno()
        self._already_read = already_read
        self._readable = True  # there may be bytes; only asking tells
        self._watched = False  # whether the loop watches for reading
        self._tells_again = isinstance(self._loop, asyncio.SelectorEventLoop)  # of what nobody has read, errors too
        self._glance: select.poll | None = None
        self._turns = 0  # reads since somebody else had a turn
        self._reader = Waiting(self._loop)
        self._unsent: deque[memoryview] | None = None
        self._drained: list[asyncio.Future[None]] | None = None
        self._ends = ""  # "eof" or "close": what follows when all is sent
        self._error: OSError | None = None
        self._closed = False
        self._released: Callable[[], None] | None = None

    # --- reading ---

    async def read(self, most: int = CHUNK) -> bytes:
        """At least one and at most `most` bytes; empty at the end of the stream, and once closed.

        Raises OSError, or what `interrupt` was given. One reader at a time.
        """
        while not (self._closed or self._ends == "close"):
            if not self._readable:
                if self._reader.is_awaited:
                    raise RuntimeError("two readers of one connection")
                self._turns = 0
                if not self._watched:
                    self._watch()
                await self._reader
                continue
            if self._turns >= _READS_A_TURN:
                self._turns = 0
                await asyncio.sleep(0)
            data = self.read_now(most)
            if data is not None:
                self._turns += 1
                if self._tells_again and self._has_no_more(data, most):
                    self._readable = False
                return data
        return b""

    def _has_no_more(self, data: bytes, most: int) -> bool:
        """Whether what is still to come is in the kernel, or not there yet, after `data` was read."""
        return len(data) < most and not self._already_read

    def _receive(self, most: int) -> bytes:
        """What the kernel has. Raises BlockingIOError where it has nothing."""
        return self.sock.recv(most)

    def read_now(self, most: int = CHUNK) -> bytes | None:
        """What is there without waiting; None where there is nothing. Raises OSError."""
        if self._closed:
            return b""
        if self._already_read:
            data, self._already_read = self._already_read[:most], self._already_read[most:]
            return data
        try:
            data = self._receive(most)
        except BlockingIOError:
            self._readable = False
            return None
        if not data and self._error is not None:
            raise self._error  # sending has used up the error, or reading would have got it
        return data

    async def _until_readable(self) -> None:
        self._watch()
        await self._reader

    def is_silent(self) -> bool:
        """Whether the kernel has nothing to tell of this connection, its end included. Reads nothing."""
        if self._closed or self._already_read:
            return False
        if self._glance is None:
            self._glance = select.poll()
            self._glance.register(self._fd, select.POLLIN | select.POLLRDHUP)
        if self._glance.poll(0):
            return False
        self._readable = False
        return True

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._loop.add_reader(self._fd, self._on_readable)

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._fd)

    def _on_readable(self) -> None:
        self._readable = True
        if self._reader.is_awaited:
            self._reader.wake()
        else:
            self._unwatch()

    # --- writing ---

    def write(self, data: Buffer) -> None:
        """Sends what the kernel takes and keeps the rest. A connection that is lost swallows it: `drain` tells."""
        if self._closed or self._ends or self._error is not None or not data:
            return
        if self._unsent:
            self._unsent.append(memoryview(bytes(data)))
            return
        try:
            sent = self._send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        if sent < len(data):
            self._unsent = deque([memoryview(bytes(data))[sent:]])
            self._loop.add_writer(self._fd, self._on_writable)

    def _send(self, data: Buffer) -> int:
        """How much of it has gone. Raises BlockingIOError where that is nothing."""
        return self.sock.send(data)

    async def drain(self) -> None:
        """Waits until all that was written has gone to the kernel. Raises OSError where the connection is lost."""
        if self._unsent:
            waiter = self._loop.create_future()
            if self._drained is None:
                self._drained = []
            self._drained.append(waiter)
            try:
                await waiter
            finally:
                with contextlib.suppress(ValueError):
                    self._drained.remove(waiter)
        if self._error is not None:
            raise self._error
        if self._closed:
            raise ConnectionResetError("the connection is closed")

    def _on_writable(self) -> None:
        unsent = self._unsent
        try:
            while unsent:
                sent = self._send(unsent[0])
                if sent == len(unsent[0]):
                    unsent.popleft()
                else:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(error)
            return
        self._stop_writing()
        if self._ends == "eof":
            self._shut()
        elif self._ends == "close":
            self._close()
        self._wake_drained()

    def _stop_writing(self) -> None:
        if self._unsent is not None:
            self._unsent = None
            self._loop.remove_writer(self._fd)

    def _wake_drained(self) -> None:
        for waiter in self._drained or ():
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: OSError) -> None:
        """Nothing more can be sent. What has come can still be read, and reading tells the rest."""
        self._error = error
        self._stop_writing()
        if self._ends == "close":
            self._close()
        self._wake_drained()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        return sum(len(piece) for piece in self._unsent or ())

    # --- ending ---

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Ends this direction once all is sent; the other goes on."""
        if self._ends or self._closed:
            return
        self._ends = "eof"
        if not self._unsent:
            self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # the peer has gone
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes once all is sent. Who reads is told that the stream has ended."""
        if self._closed or self._ends == "close":
            return
        self._ends = "close"
        if not self._unsent:
            self._close()
        else:
            self._unwatch()
            self._reader.wake_soon()

    def abort(self) -> None:
        """Ends the connection at once and with RST, so that the peer cannot take it for an end in peace."""
        if self._closed:
            return
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        self._let_go()

    def _close(self) -> None:
        """Ends in peace."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _IN_PEACE)
        if self._shared:
            self._shut()  # who closes it last would send the FIN
        self._let_go()

    def _let_go(self) -> None:
        self._closed = True
        if self._released is not None:
            self._released()
            self._released = None
        self._unwatch()
        self._stop_writing()
        self.sock.close()
        self._reader.wake_soon()
        self._wake_drained()

    @property
    def closed(self) -> bool:
        """Whether the socket is closed, and nothing is still to be sent."""
        return self._closed

    def is_closing(self) -> bool:
        return self._closed or self._ends == "close"

    async def wait_closed(self) -> None:
        """After `close`: waits until all is sent and the socket is closed."""
        with contextlib.suppress(OSError):
            while self._unsent:
                await self.drain()

    def has_gone(self) -> bool:
        """Whether the connection is over for both directions: closed here, or reset by the peer. Reads nothing."""
        if self._closed or self._error is not None:
            return True
        return self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE

    # --- for who stands above ---

    def interrupt(self, error: BaseException) -> None:
        """Whoever waits on this connection now gets `error` instead. Nothing is lost."""
        self._reader.fail(error)
        for waiter in self._drained or ():
            if not waiter.done():
                waiter.set_exception(error)

    async def connected(self) -> int:
        """Waits for a connect that is under way; returns its error number, 0 for none."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._fd, _wake, waiter)
        try:
            await waiter
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not error:
                self._watch()  # before the writer goes: one watch that changes is cheaper than two
        finally:
            self._loop.remove_writer(self._fd)
        return error

    def take_unread(self) -> bytes:
        """What was read before this object was made and nobody has asked for yet."""
        unread, self._already_read = self._already_read, b""
        return unread

    def hand_over(self, released: Callable[[], None] | None = None) -> socket.socket:
        """The socket, for somebody else to watch, read and write. All must have been sent (`drain`).

        Only `close` and `abort` may be called afterwards; `released` is called before the socket is closed, and must
        take the new owner's callbacks off the loop.
        """
        if self._unsent or self._already_read or self._reader.is_awaited:
            raise RuntimeError("the connection is in use")
        self._unwatch()
        self._released = released
        if released is None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _IN_PEACE)  # it ends as its new owner likes
        return self.sock


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
