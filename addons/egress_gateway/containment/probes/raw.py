"""Packets that are neither TCP nor UDP nor ICMP: tunnels, SCTP, and what a filter may fail to read.

Whoever receives a protocol that it does not speak says so by ICMP, which is as good as an answer.
"""

from __future__ import annotations

import socket

from egress_gateway.containment.attempt import datagram, quoted
from egress_gateway.containment.attempt.family import Family, family_of
from egress_gateway.containment.attempt.heard import Heard
from egress_gateway.containment.outcome import Untested
from egress_gateway.containment.spoken import ip

from .packets import judged
from .setting import Probe

PROTOCOLS = {ip.IPV6_IN_IP: "IPv6 in IP", ip.GRE: "GRE", ip.ESP: "ESP", ip.SCTP: "SCTP"}


def outside(address: str, protocol: int) -> Probe:
    family = family_of(address)

    def attempt(hops: int | None, deadline: float) -> Heard:
        return datagram.ask(_open(family, protocol), family, address, 0, ip.packet(protocol), deadline, hops=hops)

    return lambda setting: judged(setting, attempt, address)


def cut_short(address: str) -> Probe:
    """IPv6 headers that end too early have no protocol that a rule could match, and a router passes them on."""

    def attempt(hops: int | None, deadline: float) -> Heard:
        sender, listener = _open(Family.V6, ip.DESTINATION_OPTIONS), _open(Family.V6, socket.IPPROTO_ICMPV6)
        return quoted.ask(sender, listener, address, ip.cut_short(), deadline, hops=hops)

    return lambda setting: judged(setting, attempt, address)


def _open(family: Family, protocol: int) -> socket.socket:
    try:
        return socket.socket(family.number, socket.SOCK_RAW, protocol)
    except PermissionError:
        raise Untested("needs root, for a raw socket") from None
