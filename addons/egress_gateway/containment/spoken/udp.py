"""First datagrams of protocols that tunnels and clients use over UDP, such that a server must answer.

What no server must answer is a tunnel's own: for it, and for every port that nobody knows, there are 32 bytes.
"""

from __future__ import annotations

import os
import struct

from . import dns

_QUIC_SIZE = 1200
_QUIC_RESERVED_VERSION = 0x1A2A3A4A


def quic() -> bytes:
    """A long header of a version that no server has: it must answer with Version Negotiation (RFC 9000, 5.2.2, 6.1)."""
    identifiers = b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
    return (b"\xc0" + struct.pack("!I", _QUIC_RESERVED_VERSION) + identifiers).ljust(_QUIC_SIZE, b"\0")


def ntp() -> bytes:
    """A client's request, version 4 (RFC 5905)."""
    return b"\x23" + bytes(47)


def stun() -> bytes:
    """A Binding request without attributes (RFC 8489)."""
    return struct.pack("!HHI", 0x0001, 0, 0x2112A442) + os.urandom(12)


def unknown() -> bytes:
    return os.urandom(32)


def packet(port: int, name: str) -> bytes:
    """What is said to `port`; a DNS server there is asked for `name`."""
    if port in (443, 853):
        return quic()
    if port == 123:
        return ntp()
    if port == 3478:
        return stun()
    if port in (53, 5353):
        return dns.question(name)
    return unknown()
