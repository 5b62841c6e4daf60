"""IPv4 and IPv6, and the numbers that the socket module has no names for (Linux)."""

from __future__ import annotations

import ipaddress
import socket
from enum import Enum
from typing import Any


class Family(Enum):
    V4 = "IPv4"
    V6 = "IPv6"

    @property
    def number(self) -> int:
        return socket.AF_INET if self is Family.V4 else socket.AF_INET6

    @property
    def level(self) -> int:
        """The level of its socket options, and of its messages in the error queue."""
        return socket.IPPROTO_IP if self is Family.V4 else socket.IPPROTO_IPV6

    def limit_hops(self, sock: socket.socket, hops: int) -> None:
        """Lets the packets of `sock` reach `hops` machines: the last of them may answer, but not pass them on."""
        option = socket.IP_TTL if self is Family.V4 else socket.IPV6_UNICAST_HOPS
        sock.setsockopt(self.level, option, hops)

    def keep_errors(self, sock: socket.socket) -> None:
        """Asks for every ICMP error with its sender, in the error queue (IP_RECVERR, IPV6_RECVERR; ip(7))."""
        sock.setsockopt(self.level, 11 if self is Family.V4 else 25, 1)


def family_of(address: str) -> Family:
    return Family.V6 if ipaddress.ip_address(address).version == 6 else Family.V4


def socket_address(address: str, port: int) -> Any:
    """What `connect` takes; `address` may have a zone, as in `fe80::1%eth0`."""
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM, flags=flags)[0][4]


def shown(address: str, port: int = 0) -> str:
    """`203.0.113.1:22`, `[2001:db8::1]:22`; without a port the address alone."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
