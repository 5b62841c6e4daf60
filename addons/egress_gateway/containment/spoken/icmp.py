"""ICMP echo (RFC 792, RFC 4443)."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("!BBHHH")
_REQUEST = {4: 8, 6: 128}
_REPLY = {4: 0, 6: 129}
_PAYLOAD = b"gateway-check".ljust(32, b".")


def request(version: int, identifier: int) -> bytes:
    """An echo request of ICMP for IP `version`. The checksum is that of IPv4; for IPv6 the kernel makes it."""
    head = _HEADER.pack(_REQUEST[version], 0, 0, identifier, 1)
    if version == 6:
        return head + _PAYLOAD
    return _HEADER.pack(_REQUEST[version], 0, checksum(head + _PAYLOAD), identifier, 1) + _PAYLOAD


def is_reply(version: int, data: bytes) -> bool:
    """`data` is an ICMP message that answers `request`. Its identifier is not looked at: the kernel may choose it."""
    return len(data) >= _HEADER.size and data[0] == _REPLY[version] and data[_HEADER.size :] == _PAYLOAD


def without_ip_header(data: bytes) -> bytes:
    """What a raw IPv4 socket hands over begins with the IP header."""
    return data[(data[0] & 0x0F) * 4 :] if data else data


def checksum(data: bytes) -> int:
    """RFC 1071; the length of `data` is even."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
