"""Errors about packets that no kernel can follow, found by what they quote."""

from __future__ import annotations

import socket
import time
from typing import Any

from egress_gateway.containment.attempt import quoted
from egress_gateway.containment.attempt.heard import Heard, Kind
from egress_gateway.containment.spoken import ip
from support.networks import TwoNetworks


def ask(networks: TwoNetworks, packet: bytes, hops: int | None, seconds: float = 30) -> Heard:
    with networks.client.entered():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, ip.DESTINATION_OPTIONS)
        listener = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        heard = quoted.ask(sender, listener, networks.evil.ipv6, packet, time.monotonic() + seconds, hops=hops)
    assert sender.fileno() == listener.fileno() == -1
    return heard


def test_the_router_says_that_it_went_no_further(networks: TwoNetworks) -> None:
    assert ask(networks, ip.cut_short(), hops=1) == Heard(Kind.EXPIRED, by="fd66::1")


class Late(socket.socket):
    """A socket of a machine that stands still once it has sent something, for longer than there is time.

    Before it another packet has been sent, so that the first that comes is about that one.
    """

    def sendto(self, *what: Any) -> int:
        super().sendto(b"another", *what[1:])
        sent = super().sendto(*what)
        time.sleep(0.2)
        return sent


def test_what_came_in_time_counts_however_late_it_is_looked_at(networks: TwoNetworks) -> None:
    with networks.client.entered():
        sender = Late(socket.AF_INET6, socket.SOCK_RAW, ip.DESTINATION_OPTIONS)
        listener = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        heard = quoted.ask(sender, listener, networks.evil.ipv6, ip.cut_short(), time.monotonic() + 0.1, hops=1)
    assert heard == Heard(Kind.EXPIRED, by="fd66::1")


def test_nothing_is_heard_from_those_who_take_it(networks: TwoNetworks) -> None:
    assert ask(networks, ip.cut_short(), None, 0.1) == Heard(Kind.SILENT)


def test_errors_about_other_packets_are_not_ours(networks: TwoNetworks) -> None:
    """Other packets, sent from here a moment before, have ended at the same router."""
    with networks.client.entered():
        listener = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, ip.DESTINATION_OPTIONS) as other:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
            other.sendto(ip.cut_short()[:-1] + b"x", (networks.evil.ipv6, 0))
            other.sendto(ip.cut_short(), (networks.web.ipv6, 0))
        sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, ip.DESTINATION_OPTIONS)
        heard = quoted.ask(sender, listener, networks.evil.ipv6, ip.cut_short(), time.monotonic() + 0.2)
    assert heard == Heard(Kind.SILENT)
