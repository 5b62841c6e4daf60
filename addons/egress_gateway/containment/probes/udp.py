"""UDP that must not get through: QUIC, time, tunnels, whatever port."""

from __future__ import annotations

import socket

from egress_gateway.containment.attempt import datagram
from egress_gateway.containment.attempt.family import family_of
from egress_gateway.containment.attempt.heard import Heard
from egress_gateway.containment.outcome import Verdict
from egress_gateway.containment.spoken import udp

from .packets import judged
from .setting import Probe, Setting


def outside(address: str, port: int) -> Probe:
    family = family_of(address)

    def probe(setting: Setting) -> Verdict:
        packet = udp.packet(port, setting.denied_name)

        def attempt(hops: int | None, deadline: float) -> Heard:
            sock = socket.socket(family.number, socket.SOCK_DGRAM)
            return datagram.ask(sock, family, address, port, packet, deadline, hops=hops)

        return judged(setting, attempt, address)

    return probe
