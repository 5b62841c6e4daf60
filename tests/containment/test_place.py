"""Where the gateway is: next door, behind another router, or nowhere."""

from __future__ import annotations

import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from egress_gateway.containment import place as module
from egress_gateway.containment.attempt.family import Family
from egress_gateway.containment.attempt.heard import Heard, Kind
from egress_gateway.containment.place import Place, locate
from support.everything import Everything
from support.gateway_stand_in import GatewayStandIn
from support.networks import Host, TwoNetworks

Locate = Callable[..., Place | None]
NAME = "denied.example"


def place(host: Host, family: Family, target: str, given: str | None = None, patience: float = 20) -> Place | None:
    """`patience` costs nothing unless nobody answers."""
    with host.entered():
        return locate(family, target, NAME, given, patience)


@pytest.mark.parametrize("family", Family)
def test_next_door(networks: TwoNetworks, gateway: GatewayStandIn, family: Family) -> None:
    four = family is Family.V4
    target, address = (networks.evil.ipv4, "10.66.0.1") if four else (networks.evil.ipv6, "fd66::1")
    own = networks.client.ipv4 if four else networks.client.ipv6
    assert place(networks.client, family, target) == Place(1, (address,), own)


@pytest.mark.parametrize("family", Family)
def test_behind_another_router(networks: TwoNetworks, gateway: GatewayStandIn, inner: Host, family: Family) -> None:
    four = family is Family.V4
    target, address = (networks.evil.ipv4, "10.66.0.1") if four else (networks.evil.ipv6, "fd66::1")
    assert place(inner, family, target) == Place(2, (address,), inner.ipv4 if four else inner.ipv6)


def test_somebody_further_away_who_is_no_gateway_is_not_taken_for_one(
    networks: TwoNetworks, gateway: GatewayStandIn, everything: Everything
) -> None:
    with gateway.without_filter():
        found = place(networks.client, Family.V4, networks.evil.ipv4)
    assert found == Place(1, ("10.66.0.1",), networks.client.ipv4, found=False)


def test_a_gateway_that_keeps_silent_is_the_default_router(networks: TwoNetworks, gateway: GatewayStandIn) -> None:
    silent = "table inet silence {\nchain silence {\ntype filter hook prerouting priority -300\ndrop\n}\n}\n"
    with gateway.without_filter():
        gateway.host.run("nft", "-f", "-", input=silent)
        found = place(networks.client, Family.V6, networks.evil.ipv6, patience=1)
        gateway.host.run("nft", "delete", "table", "inet", "silence")
    assert found == Place(1, ("fd66::1",), networks.client.ipv6, found=False)


def test_it_takes_its_time_and_no_more(monkeypatch: pytest.MonkeyPatch, networks: TwoNetworks) -> None:
    """Where nobody says anything, by a clock that only those who listen move on."""
    now = 0.0

    def silence(*given: Any, **_: Any) -> Heard:
        nonlocal now
        now = given[-1]  # the deadline
        if isinstance(given[0], socket.socket):
            given[0].close()
        return Heard(Kind.SILENT)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(module, "stream", SimpleNamespace(ask=silence))
    monkeypatch.setattr(module, "datagram", SimpleNamespace(ask=silence))
    for patience in (1, 10):
        now = 0.0
        assert place(networks.client, Family.V4, networks.evil.ipv4, patience=patience)
        assert 0.8 * patience < now <= patience


def test_the_address_that_the_user_told_comes_first(networks: TwoNetworks, gateway: GatewayStandIn) -> None:
    found = place(networks.client, Family.V4, networks.evil.ipv4, "10.66.0.254")
    assert found is not None
    assert found.addresses == ("10.66.0.254", "10.66.0.1")
    assert found.address == "10.66.0.254"


def test_no_route_no_place(networks: TwoNetworks) -> None:
    networks.client.run("ip", "route", "del", "default")
    try:
        assert place(networks.client, Family.V4, networks.evil.ipv4) is None
    finally:
        networks.client.run("ip", "route", "add", "default", "via", networks.gateway.ipv4)


def test_the_gateway_may_be_on_this_very_machine() -> None:
    here = Place(1, ("192.0.2.1",), "192.0.2.7")
    assert here.is_gateway("192.0.2.7")
    assert here.is_gateway("192.0.2.1")
    assert not here.is_gateway("192.0.2.2")
    assert Place(1, (), "192.0.2.7").address == ""
