"""A UDP socket on which questions come, each in a datagram of its own.

mitmproxy's own UDP server makes a connection out of every address and port that a datagram comes from, keeps what
nobody reads without a limit, and goes on dropping what comes from an address and port for a minute after their
connection was closed. Name servers are asked from a new port each time, so here is nothing but a socket: what a flood
of made-up senders costs is the socket's buffer. See docs/decisions/0010-udp-questions-have-a-socket-of-their-own.md.

- An answer leaves from the address that was asked, whatever the route back would choose: a client believes no other,
  and neither does a packet filter that has redirected the question.
- What cannot be sent at once is dropped, as the network would; the client asks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

from .message import LONGEST_QUESTION
from .questions import NameServer, client_of
from .refusals import PROTOCOL

type _Ancillary = list[tuple[int, int, bytes]]

_AT_ONCE = 32
"""Datagrams that are taken from the socket before others have their turn."""
_BUFFER = 1 << 20
_IP_PKTINFO: int = getattr(socket, "IP_PKTINFO", 8)
_IPV6_FREEBIND = 78  # linux/in6.h
_V4 = struct.Struct("@I4s4s")  # struct in_pktinfo: interface, local address, address in the header
_V6 = struct.Struct("@16sI")  # struct in6_pktinfo: address, interface
_SPACE = socket.CMSG_SPACE(max(_V4.size, _V6.size))


class DatagramServer:
    """Serves from the moment it is made, in the running event loop, until `close`.

    `admits` says whether a client of that address is listened to.
    It has what mitmproxy asks of a server: `sockets`, `getsockname` and `close`.
    """

    def __init__(self, server: NameServer, sock: socket.socket, admits: Callable[[str], bool]) -> None:
        self._server = server
        self._sock = sock
        self._admits = admits
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock.fileno(), self._receive)

    @classmethod
    async def listen(
        cls, server: NameServer, host: str, port: int, admits: Callable[[str], bool] = lambda _: True
    ) -> DatagramServer:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        family, _, _, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM))[0]
        sock = bind(family, address)
        try:
            return cls(server, sock, admits)
        except BaseException:
            sock.close()
            raise

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        return () if self._sock.fileno() < 0 else (self._sock,)

    def getsockname(self) -> Any:
        return self._sock.getsockname()

    def close(self) -> None:
        """Ends at once; what waits for an answer gets none."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for task in self._tasks:
            task.cancel()

    def _receive(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data, ancillary, _, peer = self._sock.recvmsg(LONGEST_QUESTION + 1, _SPACE)
            except OSError:  # nothing more there, or an error of an earlier answer
                return
            try:
                client = client_of(peer)
                if not self._admits(client[0]):
                    continue
            except Exception:
                self._server.gate.failed(PROTOCOL)
                continue
            task = self._loop.create_task(self._answer(data, client, peer, _from_there(ancillary)))
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, client: tuple[str, int], peer: Any, ancillary: _Ancillary) -> None:
        reply = await self._server.answer(data, client, udp=True)
        if reply is not None:
            with contextlib.suppress(OSError):
                self._sock.sendmsg([reply], ancillary, 0, peer)


def bind(family: int, address: Any) -> socket.socket:
    """A socket to serve on, which tells where each datagram was sent to. Raises OSError."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.setblocking(False)
        sock.bind(address)
        if family == socket.AF_INET6:
            # An address may be routed to this machine and belong to no interface of it.
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
        return sock
    except BaseException:
        sock.close()
        raise


def _from_there(ancillary: _Ancillary) -> _Ancillary:
    """What makes an answer leave from the address that a datagram was sent to."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(data) == _V4.size:
            _, local, _ = _V4.unpack(data)
            return [(level, kind, _V4.pack(0, local, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO) and len(data) == _V6.size:
            local, interface = _V6.unpack(data)
            # Only an address that is local to a link is not the same everywhere.
            return [(level, kind, _V6.pack(local, interface if IPv6Address(local).is_link_local else 0))]
    return []
