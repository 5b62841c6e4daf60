"""Both ends of one TCP connection, and what the kernel holds between them."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import struct
import sys
import termios

from support.waiting import PATIENCE, until

_SIOCOUTQNSD = 0x894B  # linux/sockios.h


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection, non-blocking."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    for sock in (far, near):
        sock.setblocking(False)
    return far, near


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def arrive(*sent_to: socket.socket) -> None:
    """Waits until all of them have something to read, without a turn of the loop: loopback may be late as well."""
    for sock in sent_to:
        assert select.select([sock], [], [], PATIENCE)[0], "nothing has come"


def queued(sock: socket.socket, which: int = termios.TIOCOUTQ) -> int:
    """Bytes that the kernel was given and the other end has not confirmed; with SIOCOUTQNSD those not even sent."""
    return int.from_bytes(fcntl.ioctl(sock, which, bytes(4)), sys.byteorder)


async def fill(sock: socket.socket) -> int:
    """Sends until neither end takes any more, and nothing on the way will make room; returns how much that was."""
    piece, sent = bytes(1_000), 0

    def full() -> bool:
        nonlocal sent
        before, stuck = sent, 0 < queued(sock) == queued(sock, _SIOCOUTQNSD)
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += sock.send(piece)
        return stuck and sent == before

    await until(full, "nothing is on the way, and what is left may not be sent")
    return sent
