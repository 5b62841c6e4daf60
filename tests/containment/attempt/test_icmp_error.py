"""ICMP errors out of a real error queue, and what each of them says."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any, ClassVar

import pytest

from egress_gateway.containment.attempt import datagram
from egress_gateway.containment.attempt.family import Family, family_of
from egress_gateway.containment.attempt.heard import Heard, Kind
from egress_gateway.containment.attempt.icmp_error import read_error, understand
from support.netns import OWN_V4, OWN_V6
from support.networks import TwoNetworks
from support.waiting import eventually

BY = "192.0.2.1"

SAYS = {
    "port unreachable": (Family.V4, 3, 3, Heard(Kind.ERROR, words="port unreachable", by=BY)),
    "prohibited": (Family.V4, 3, 13, Heard(Kind.ERROR, words="administratively prohibited", by=BY)),
    "time exceeded on the way": (Family.V4, 11, 0, Heard(Kind.EXPIRED, by=BY)),
    "time exceeded while putting fragments together": (
        Family.V4,
        11,
        1,
        Heard(Kind.ERROR, words="ICMP error 11.1", by=BY),
    ),
    "fragmentation needed says nothing": (Family.V4, 3, 4, None),
    "IPv6 port unreachable": (Family.V6, 1, 4, Heard(Kind.ERROR, words="port unreachable", by=BY)),
    "IPv6 prohibited": (Family.V6, 1, 1, Heard(Kind.ERROR, words="administratively prohibited", by=BY)),
    "IPv6 unknown next header": (Family.V6, 4, 1, Heard(Kind.ERROR, words="unknown next header", by=BY)),
    "IPv6 time exceeded": (Family.V6, 3, 0, Heard(Kind.EXPIRED, by=BY)),
    "IPv6 packet too big says nothing": (Family.V6, 2, 0, None),
}


@pytest.mark.parametrize("case", SAYS)
def test_what_an_error_says(case: str) -> None:
    family, kind, code, heard = SAYS[case]
    assert understand(family, kind, code, BY) == heard


@pytest.mark.private_network
@pytest.mark.parametrize("address", [OWN_V4, OWN_V6])
def test_errors_are_read_one_by_one_until_there_are_none(address: str) -> None:
    family = family_of(address)
    with socket.socket(family.number, socket.SOCK_DGRAM) as sock:
        family.keep_errors(sock)
        sock.connect((address, 9))
        assert read_error(sock, family) is None
        sock.send(b"x")
        error = eventually(lambda: read_error(sock, family), "an error")
        assert error == Heard(Kind.ERROR, words="port unreachable", by=address)
        assert read_error(sock, family) is None


def test_an_error_of_this_machine_is_none_of_icmp() -> None:
    """Nor is a message that is too short to be one."""
    local = struct.pack("=IBBBxII", 90, 1, 0, 0, 1400, 0)

    class Queue:
        waiting: ClassVar = [[(socket.IPPROTO_IP, 11, local)], [(socket.IPPROTO_IP, 11, b"\0" * 4)], [(99, 11, local)]]

        def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
            if not self.waiting:
                raise BlockingIOError
            return b"", self.waiting.pop(0), 0, None

    queue: Any = Queue()
    assert read_error(queue, Family.V4) is None


@pytest.mark.parametrize("family", Family)
def test_a_packet_that_may_not_go_further_is_reported_by_the_router_where_it_ended(
    networks: TwoNetworks, family: Family
) -> None:
    target, router = ("203.0.113.66", "10.66.0.1") if family is Family.V4 else ("2001:db8::66", "fd66::1")
    with networks.client.entered():
        sock = socket.socket(family.number, socket.SOCK_DGRAM)
        heard = datagram.ask(sock, family, target, 9, b"x", time.monotonic() + 30, hops=1)
    assert heard == Heard(Kind.EXPIRED, by=router)
