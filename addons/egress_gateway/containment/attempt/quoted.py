"""One try with an IPv6 packet whose headers no kernel can follow to their end, so that it finds no socket for an error.

The error is looked for in all that comes by ICMPv6: it quotes the packet (RFC 4443, 2.4).
"""

from __future__ import annotations

import socket
import time

from .family import Family, socket_address
from .heard import MOST_LATE, Heard, Kind, left
from .icmp_error import understand

_READY = 0.001  # seconds; with 0 a socket raises another error
_ERROR, _IPV6 = 8, 40  # lengths of the headers
_FIRST_NO_ERROR = 128  # the types of errors are below
_DESTINATION = slice(_ERROR + 24, _ERROR + 40)


def ask(
    sender: socket.socket,
    listener: socket.socket,
    address: str,
    packet: bytes,
    deadline: float,
    *,
    hops: int | None = None,
) -> Heard:
    """What came back until `deadline` (monotonic) to `packet`, sent by the raw socket `sender`. Closes both sockets."""
    with sender, listener:
        if hops is not None:
            Family.V6.limit_hops(sender, hops)
        try:
            sender.sendto(packet, socket_address(address, 0))
        except PermissionError:
            return Heard(Kind.FILTERED)
        destination = socket.inet_pton(socket.AF_INET6, address)
        late = 0
        while late < MOST_LATE:
            late += time.monotonic() >= deadline
            # One look is made in any case; then only what lies ready is looked at, or a flood would go on for seconds.
            listener.settimeout(left(deadline) if late < 2 else _READY)
            try:
                data, sent_by = listener.recvfrom(2048)
            except socket.timeout:
                break
            if data[0] < _FIRST_NO_ERROR and data[_DESTINATION] == destination and data[_ERROR + _IPV6 :] == packet:
                heard = understand(Family.V6, data[0], data[1], sent_by[0])
                if heard is not None:
                    return heard
    return Heard(Kind.SILENT)
