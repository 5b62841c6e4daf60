"""One TCP connection as reader and writer in one, on a bare non-blocking socket.

asyncio's streams copy every byte twice and turn the loop three times for a message. The relay reads when it wants
to, writes at once what the kernel takes, and asks to be told only when it has to wait. See
docs/decisions/0016-sockets-instead-of-streams.md.

The rules of this file:

- The socket has one owner, this object, until `hand_over`. Nothing else reads, writes or closes it.
- A wait that is cancelled has read nothing: bytes are taken out of the kernel by who gets them, never in advance.
- The kernel tells of each change once (`poller.py`), so it is noted here whether there may be something to read: after
  a read that got less than it asked for there is not, unless the kernel has said that more is to come than bytes.
- The poller forgets a descriptor before it is closed: the next one that is opened has the same number.
- What was not sent yet is kept in order; `drain` waits until all of it has gone, but for what is held (the next rule).
  So memory is bounded by one write and one held message.
- What is small and written `soon` waits until all that has come in this turn of the poller is served: whoever gets it
  is woken once for many. At most one message of each connection is held, it goes before all else that is written, and
  nothing is held outside a turn.
- Nobody is starved: after a number of reads that did not have to wait, a read lets the others have their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import sys
import termios
from collections import deque
from collections.abc import Callable

from .poller import READABLE, UNSURE, WRITABLE, poller
from .waiting import Waiting

CHUNK = 65_536
_READS_A_TURN = 16
_MOST_HELD = 1 << 14
"""Of larger messages to be woken costs little, and the kernel may not take all of one at once."""
NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER's value for an end at once, with RST."""
_IN_PEACE = struct.pack("ii", 0, 0)
_TCP_CLOSE = 7  # include/net/tcp_states.h
_NO_COUNT = bytes(4)  # an int, as the kernel writes it

type Buffer = bytes | bytearray | memoryview


def queued(fd: int, which: int) -> int:
    """Bytes in a queue of the kernel's: TIOCOUTQ for what the peer has not confirmed, FIONREAD for what nobody has read
    (tcp(7)). Raises OSError."""
    return int.from_bytes(fcntl.ioctl(fd, which, _NO_COUNT), sys.byteorder)


class Connection:
    """`sock` must be connected (or connecting, see `connected`) and becomes this object's.

    `shared` says that somebody else holds the same connection by another descriptor, so that closing this one alone
    would not tell the peer. `already_read` is what comes before the next byte of the socket.
    """

    __slots__ = (
        "_already_read",
        "_closed",
        "_connecting",
        "_drained",
        "_ends",
        "_error",
        "_fd",
        "_glance",
        "_held",
        "_loop",
        "_poller",
        "_readable",
        "_reader",
        "_released",
        "_shared",
        "_tells_of_room",
        "_turns",
        "_unsent",
        "_unsure",
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
        self._poller = poller()
        self._readable = True  # there may be bytes; only asking tells
        self._unsure = False  # whether only EAGAIN says that there are none
        self._watched = False  # whether the poller tells of changes
        self._tells_of_room = False  # whether it tells of when more can be sent
        self._connecting = False
        self._glance: select.poll | None = None
        self._turns = 0  # reads since somebody else had a turn
        self._reader: Waiting | None = None  # there is one once somebody has waited
        self._unsent: deque[memoryview] | None = None
        self._held: bytes | None = None  # what was written soon, and the turn is not over
        self._drained: list[asyncio.Future[None]] | None = None
        self._ends = ""  # "eof" or "close": what follows when all is sent
        self._error: OSError | None = None
        self._closed = False
        self._released: Callable[[], None] | None = None

    # --- reading ---

    async def read(self, most: int = CHUNK) -> bytes:
        """At least one and at most `most` bytes; empty at the end of the stream, and once closed.

        Raises OSError. One reader at a time.
        """
        while not (self._closed or self._ends == "close"):
            if not self._readable:
                reader = self._waiting()
                if reader.is_awaited:
                    raise RuntimeError("two readers of one connection")
                self._turns = 0
                if not self._watched:
                    self._watch()
                await reader
                continue
            if self._turns >= _READS_A_TURN:
                self._turns = 0
                await asyncio.sleep(0)
            data = self.read_now(most)
            if data is not None:
                self._turns += 1
                return data
        return b""

    def _waiting(self) -> Waiting:
        if self._reader is None:
            self._reader = Waiting(self._loop)
        return self._reader

    def _receive(self, most: int) -> bytes:
        """What the kernel has; notes whether it may have more. Raises BlockingIOError where it has nothing."""
        data = self.sock.recv(most)
        if len(data) < most and not self._unsure:
            self._readable = not data  # after the end of the stream there is always the end of the stream
        return data

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

    def is_silent(self) -> bool:
        """Whether the kernel has nothing to tell of this connection, its end included. Reads nothing."""
        if self._closed or self._already_read:
            return False
        if self._glance is None:
            self._glance = select.poll()
            self._glance.register(self._fd, select.POLLIN | select.POLLRDHUP)
        if self._glance.poll(0):
            self._readable = True
            return False
        self._readable = False
        return True

    def _watch(self) -> None:
        if not self._watched:
            self._poller.watch(self._fd, self)
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._poller.forget(self._fd)

    def changed(self, descriptor: int, event: int) -> None:
        """What the kernel says of the socket, each change once."""
        if event & READABLE:
            self._readable = True
            if event & UNSURE:
                self._unsure = True
            if not self._connecting and self._reader is not None:
                self._reader.wake()
        if event & WRITABLE:
            if self._connecting:
                self._waiting().wake()
            elif self._unsent:
                self._send_rest()

    # --- writing ---

    def write(self, data: Buffer) -> None:
        """Sends what the kernel takes and keeps the rest. A connection that is lost swallows it: `drain` tells."""
        if self._held is not None:
            self.send_held()
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
            self._tell_of_room()

    def write_soon(self, data: bytes) -> None:
        """Like `write`, but small messages at the end of the poller's turn where others are still to be served in it.
        `drain` does not wait for those, so a connection that is lost is noticed by the next read or write; `abort`
        throws them away."""
        if self._held is None and not self._unsent and len(data) <= _MOST_HELD and self._poller.hold(self):
            self._held = data
        else:
            Connection.write(self, data)

    def send_held(self) -> None:
        """Sends what was written soon."""
        held, self._held = self._held, None
        if held is not None:
            try:
                Connection.write(self, held)
            except BaseException:
                self.abort()  # another message behind half of one would be read as the rest of it
                raise

    def _send(self, data: Buffer) -> int:
        """How much of it has gone. Raises BlockingIOError where that is nothing."""
        return self.sock.send(data)

    async def drain(self) -> None:
        """Waits until all that was written has gone to the kernel, but for what is held to the end of the turn. Raises
        OSError where the connection is lost."""
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

    def _tell_of_room(self) -> None:
        if not self._tells_of_room:
            try:
                self._poller.watch(self._fd, self, writing=True)
            except OSError as error:
                self._fail(error)
            else:
                self._watched = self._tells_of_room = True

    def _send_rest(self) -> None:
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
        self._unsent = None
        if self._ends == "eof":
            self._shut()
        elif self._ends == "close":
            self._close()
        self._wake_drained()

    def _wake_drained(self) -> None:
        for waiter in self._drained or ():
            if not waiter.done():
                waiter.set_result(None)

    def _fail(self, error: OSError) -> None:
        """Nothing more can be sent. What has come can still be read, and reading tells the rest."""
        self._error = error
        self._unsent = None
        if self._ends == "close":
            self._close()
        self._wake_drained()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        return sum(len(piece) for piece in self._unsent or ()) + len(self._held or b"")

    @property
    def on_the_way(self) -> int:
        """Bytes that were written and that the peer has not confirmed yet."""
        if self._closed:
            return 0
        return self.unsent + queued(self._fd, termios.TIOCOUTQ)

    @property
    def unread(self) -> int:
        """Bytes that have come and that nobody has read yet."""
        return len(self._already_read) + (0 if self._closed else queued(self._fd, termios.FIONREAD))

    # --- ending ---

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Ends this direction once all is sent; the other goes on."""
        self.send_held()
        if self._ends or self._closed:
            return
        self._ends = "eof"
        if not self._unsent:
            self._shut()

    def _shut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:  # the peer has gone
            pass

    def close(self) -> None:
        """Closes once all is sent. Who reads is told that the stream has ended."""
        self.send_held()
        if self._closed or self._ends == "close":
            return
        self._ends = "close"
        if not self._unsent:
            self._close()
        elif self._reader is not None:
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
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _IN_PEACE)
        except OSError:  # the peer has gone
            pass
        if self._shared:
            self._shut()  # who closes it last would send the FIN
        self._let_go()

    def _let_go(self) -> None:
        self._closed = True
        if self._released is not None:
            self._released()
            self._released = None
        self._unwatch()
        self._unsent = self._held = None
        self.sock.close()
        if self._reader is not None:
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

    async def connected(self) -> int:
        """Waits for a connect that is under way; returns its error number, 0 for none. Raises OSError."""
        self._connecting = True
        try:
            self._poller.watch(self._fd, self, writing=True)
            self._watched = self._tells_of_room = True
            await self._waiting()
        finally:
            self._connecting = False
        self._readable = True
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def take_unread(self) -> bytes:
        """What was read before this object was made and nobody has asked for yet."""
        unread, self._already_read = self._already_read, b""
        return unread

    def hand_over(self, released: Callable[[], None] | None = None) -> socket.socket:
        """The socket, for somebody else to watch, read and write. All must have been sent (`drain`). Raises OSError
        where the connection is lost.

        Only `close` and `abort` may be called afterwards. With `released` the poller goes on telling of it, the new
        owner who asks to be told; `released` is called before the socket is closed, and must have it forgotten.
        """
        self.send_held()
        if self._error is not None:
            raise self._error  # the socket no longer has it
        if self._unsent or self._already_read or (self._reader is not None and self._reader.is_awaited):
            raise RuntimeError("the connection is in use")
        self._reader = None
        self._released = released
        if released is None:
            self._unwatch()
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _IN_PEACE)  # it ends as its new owner likes
        return self.sock
