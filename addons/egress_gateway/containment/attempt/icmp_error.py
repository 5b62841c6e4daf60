"""ICMP errors with their senders, from the error queue of a datagram socket (ip(7), IP_RECVERR).

The sender is what the whole matter turns on: the same "port unreachable" is the gateway's refusal, or the proof that
the packet arrived.
"""

from __future__ import annotations

import socket
import struct

from .family import Family
from .heard import Heard, Kind

# struct sock_extended_err: errno, origin, type, code, padding, info, data; the sender's sockaddr follows.
_EXTENDED = struct.Struct("=IBBBxII")
_FROM_ICMP = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6

_WORDS = {
    Family.V4: {
        (3, 0): "network unreachable",
        (3, 1): "host unreachable",
        (3, 2): "protocol unreachable",
        (3, 3): "port unreachable",
        (3, 9): "network prohibited",
        (3, 10): "host prohibited",
        (3, 13): "administratively prohibited",
    },
    Family.V6: {
        (1, 0): "no route",
        (1, 1): "administratively prohibited",
        (1, 3): "address unreachable",
        (1, 4): "port unreachable",
        (1, 5): "source address refused by policy",
        (1, 6): "route refused",
        (4, 1): "unknown next header",
    },
}
_EXPIRED = {Family.V4: (11, 0), Family.V6: (3, 0)}
# RFC 792 "fragmentation needed" and RFC 4443 "packet too big" say nothing about who may pass.
_TOO_BIG = {Family.V4: (3, 4), Family.V6: (2, 0)}


def read_error(sock: socket.socket, family: Family) -> Heard | None:
    """The next ICMP error that waits in the queue of `sock`, if any; does not block."""
    while True:
        try:
            _, messages, _, _ = sock.recvmsg(2048, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return None
        for level, _, data in messages:
            found = _of_queue(data, family) if level == family.level else None
            if found is not None:
                return found


def _of_queue(data: bytes, family: Family) -> Heard | None:
    if len(data) < _EXTENDED.size:
        return None
    _, origin, kind, code, _, _ = _EXTENDED.unpack_from(data)
    if origin not in _FROM_ICMP:
        return None
    return understand(family, kind, code, _sender(data[_EXTENDED.size :], family))


def understand(family: Family, kind: int, code: int, by: str) -> Heard | None:
    """The ICMP error of this type and code from `by`; None if it says nothing about who may pass."""
    if (kind, code) == _TOO_BIG[family]:
        return None
    if (kind, code) == _EXPIRED[family]:
        return Heard(Kind.EXPIRED, by=by)
    return Heard(Kind.ERROR, words=_WORDS[family].get((kind, code), f"ICMP error {kind}.{code}"), by=by)


def _sender(sockaddr: bytes, family: Family) -> str:
    start, size = (4, 4) if family is Family.V4 else (8, 16)
    address = sockaddr[start : start + size]
    return socket.inet_ntop(family.number, address) if len(address) == size else ""
