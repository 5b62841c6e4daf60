"""Addresses of both families."""

from __future__ import annotations

import socket

import pytest

from egress_gateway.containment.attempt.family import Family, family_of, shown, socket_address


def test_an_address_tells_its_family() -> None:
    assert family_of("203.0.113.1") is Family.V4
    assert family_of("2001:db8::1") is Family.V6
    assert family_of("fe80::1%lo") is Family.V6


def test_a_zone_becomes_a_number() -> None:
    assert socket_address("203.0.113.1", 53) == ("203.0.113.1", 53)
    assert socket_address("fe80::1%lo", 53)[3] == socket.if_nametoindex("lo")


def test_an_address_is_shown_as_it_is_written_with_a_port() -> None:
    assert shown("203.0.113.1", 53) == "203.0.113.1:53"
    assert shown("2001:db8::1", 53) == "[2001:db8::1]:53"
    assert shown("2001:db8::1") == "2001:db8::1"


@pytest.mark.parametrize("family", Family)
def test_a_limit_of_hops_is_one_of_the_socket(family: Family) -> None:
    with socket.socket(family.number, socket.SOCK_DGRAM) as sock:
        family.limit_hops(sock, 3)
        option = socket.IP_TTL if family is Family.V4 else socket.IPV6_UNICAST_HOPS
        assert sock.getsockopt(family.level, option) == 3
