"""ICMP echo, which carries data both ways as well as any other packet."""

from __future__ import annotations

import os
import socket

from egress_gateway.containment.attempt import datagram
from egress_gateway.containment.attempt.family import Family, family_of
from egress_gateway.containment.attempt.heard import Heard
from egress_gateway.containment.outcome import Untested
from egress_gateway.containment.spoken import icmp

from .packets import judged
from .setting import Probe


def echo(address: str) -> Probe:
    family = family_of(address)
    version = 4 if family is Family.V4 else 6
    packet = icmp.request(version, os.getpid() & 0xFFFF)

    def is_reply(data: bytes) -> bool:
        # A ping socket hands over the message alone, a raw one of IPv4 the whole packet.
        return icmp.is_reply(version, data) or (version == 4 and icmp.is_reply(4, icmp.without_ip_header(data)))

    def attempt(hops: int | None, deadline: float) -> Heard:
        return datagram.ask(_open(family), family, address, 0, packet, deadline, hops=hops, is_answer=is_reply)

    return lambda setting: judged(setting, attempt, address)


def _open(family: Family) -> socket.socket:
    """A ping socket, which an ordinary user may have where net.ipv4.ping_group_range says so, or a raw one."""
    protocol = socket.IPPROTO_ICMP if family is Family.V4 else socket.IPPROTO_ICMPV6
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            return socket.socket(family.number, kind, protocol)
        except PermissionError:
            continue
    raise Untested("this user may not send ICMP: run it as root, or let net.ipv4.ping_group_range include the user")
