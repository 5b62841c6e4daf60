"""What was written to a client and has not arrived, and what has come from it and was not read.

An answer is over, for the one who counts exchanges, once its last byte is written. It may then still be with asyncio,
which takes it along when the process ends, or with the kernel, which throws it away when the socket is closed before
the client's next request has been read.
"""

from __future__ import annotations

import termios
from asyncio import WriteTransport
from typing import Any

from egress_gateway.relay.connection import queued


def transport_of(writer: Any) -> WriteTransport | None:
    """What asyncio writes with; None for a stream of mitmproxy's own."""
    return getattr(writer, "transport", None)


def unsent(transport: WriteTransport) -> int:
    """The bytes that the kernel has not been given."""
    return transport.get_write_buffer_size()


def on_the_way(transport: WriteTransport) -> int:
    """The bytes that the client's machine has not confirmed; 0 where the connection is over."""
    return unsent(transport) + _told(transport, termios.TIOCOUTQ)


def unread(transport: WriteTransport) -> int:
    """The bytes of the client's that asyncio has not taken from the kernel; 0 where the connection is over."""
    return _told(transport, termios.FIONREAD)


def _told(transport: WriteTransport, number: int) -> int:
    sock = transport.get_extra_info("socket")
    if sock is None or transport.is_closing():
        return 0
    try:
        return queued(sock.fileno(), number)
    except (OSError, ValueError):  # closed
        return 0
