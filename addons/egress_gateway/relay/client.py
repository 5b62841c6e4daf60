"""The client's side of a relayed connection, and the ways to end it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address

from .connection import NO_LINGER, Connection
from .deadline import Deadline
from .http1 import LastHead, RequestHead
from .stream import Input, Writer

LINGER_SECONDS = 1.0
LINGER_BYTES = 1 << 20
FLUSH_SECONDS = 5.0
"""How long a connection that is over may still take to swallow what was sent on it."""


@dataclass(slots=True)
class Client:
    gate: Gatekeeper
    input: Input
    writer: Writer
    peer: tuple[str, int]
    original: tuple[Address, int] | None = None
    """Transparent modes: where the client itself thinks it is connected to."""
    last_head: LastHead[RequestHead] | None = None
    """Of its requests, where there were any."""
    _deadline: Deadline | None = field(default=None, init=False)

    def begin(self) -> Exchange:
        """A new exchange of this client."""
        exchange = self.gate.begin(self.peer)
        if self.original is not None:
            exchange.original_destination = (str(self.original[0]), self.original[1])
        return exchange

    @property
    def deadline(self) -> Deadline:
        """The time that its own task waits for anything."""
        if self._deadline is None:
            self._deadline = Deadline()
        return self._deadline

    def forget_requests(self) -> None:
        """No request comes any more: lets go of what only they need, since what is left may last for hours."""
        if self._deadline is not None:
            self._deadline.close()
        self._deadline = self.last_head = None

    async def flush(self) -> None:
        """Waits until the client has taken what was sent, within the idle timeout. Raises OSError."""
        async with asyncio.timeout(self.gate.settings.limits.idle_timeout):
            await self.writer.drain()

    async def linger(self) -> None:
        """Reads and throws away what the client is still sending, within bounds.

        Closing a socket that has unread bytes makes the kernel send RST, which can overtake the refusal just written
        (RFC 9112, 9.6).
        """
        left = LINGER_BYTES
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                await self.writer.drain()
                if can_write_eof(self.writer):
                    self.writer.write_eof()
                while left > 0 and (data := await self.input.read()):
                    left -= len(data)


async def finish(writer: Writer, seconds: float = FLUSH_SECONDS) -> None:
    """Closes a connection once what is still to be sent has gone; one that does not take it is aborted.

    Otherwise it would wait for ever, on a socket that nobody counts any more.
    """
    writer.close()
    if isinstance(writer, Connection) and writer.closed:
        return
    closed = asyncio.ensure_future(writer.wait_closed())
    # Looked at, so that the loop does not complain; not cancelled, since that would cancel what others wait on.
    closed.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        finished, _ = await asyncio.wait({closed}, timeout=seconds)
    except asyncio.CancelledError:
        abort(writer)
        raise
    if not finished:
        abort(writer)


def finish_soon(writer: Writer, seconds: float = FLUSH_SECONDS) -> None:
    """The same, without waiting for it."""
    writer.close()
    if not (isinstance(writer, Connection) and writer.closed):
        asyncio.get_running_loop().call_later(seconds, abort, writer)


def has_gone(writer: Writer) -> bool:
    """Whether a connection is over for both directions, be it that its peer has reset it."""
    return writer.has_gone() if isinstance(writer, Connection) else writer.is_closing()


def on_the_way(writer: Writer) -> int:
    """Bytes that were written and that the other side has not confirmed yet, where that can be known."""
    return writer.on_the_way if isinstance(writer, Connection) else 0


def unread(writer: Writer) -> int:
    """Bytes that have come from the other side and that nobody has read yet, where that can be known."""
    return writer.unread if isinstance(writer, Connection) else 0


def can_write_eof(writer: Writer) -> bool:
    """Whether one direction of the connection can be closed alone (not so for TLS)."""
    check = getattr(writer, "can_write_eof", None)
    return check is None or bool(check())


def abort(writer: Writer) -> None:
    """Ends a connection at once and with RST, so that the other side cannot take it for an end in peace.

    What is still to be sent is thrown away.
    """
    if isinstance(writer, Connection):
        writer.abort()
        return
    transport = getattr(writer, "transport", None)
    if transport is None:
        writer.close()
        return
    sock = transport.get_extra_info("socket")
    if sock is not None:
        # Without lingering: a transport that is aborted closes its socket, and the kernel would send FIN.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()
