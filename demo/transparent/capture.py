"""What an interface saw: every IP packet that came in for one of its own addresses."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Self

_ETH_P_ALL = 0x0003
_ETH_P_IP = 0x0800
_ETH_P_IPV6 = 0x86DD
_NAMES = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6"}
_NEIGHBOUR_DISCOVERY = range(133, 138)


class Capture:
    """Made in the network namespace of `interface`. Nothing reads along: the kernel keeps what it saw until asked."""

    def __init__(self, interface: str, addresses: Iterable[str]) -> None:
        self._addresses = {ipaddress.ip_address(address) for address in addresses}
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def seen(self) -> list[str]:
        """A line for each packet since the last time."""
        found = []
        with suppress(BlockingIOError):
            while True:
                data, (_, protocol, kind, *_) = self._socket.recvfrom(65535)
                if kind != socket.PACKET_OUTGOING and (line := self._line(data, protocol)):
                    found.append(line)
        return found

    def _line(self, data: bytes, protocol: int) -> str:
        """Empty for what is not for us: broadcasts, ARP and its younger brother."""
        if protocol == _ETH_P_IP:
            number, source, destination, start = data[9], data[12:16], data[16:20], (data[0] & 15) * 4
        elif protocol == _ETH_P_IPV6:
            number, source, destination, start = data[6], data[8:24], data[24:40], 40
        else:
            return ""
        target = ipaddress.ip_address(destination)
        if target not in self._addresses or (number == 58 and data[start] in _NEIGHBOUR_DISCOVERY):
            return ""
        port = f" to port {struct.unpack_from('!H', data, start + 2)[0]}" if number in (6, 17) else ""
        return f"{_NAMES.get(number, number)} from {ipaddress.ip_address(source)}{port}"
