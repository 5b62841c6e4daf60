"""What is asked of the machine before anything is changed, next to what ip(8) says of it."""

from __future__ import annotations

import pytest

from egress_gateway.network import machine
from egress_gateway.network.terminal import Failure
from support.networks import TwoNetworks

pytestmark = [pytest.mark.private_network, pytest.mark.root]


def test_interfaces_are_those_of_this_network(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        assert sorted(machine.interfaces()) == ["inside", "lo", "outside"]


@pytest.mark.parametrize("version", ["4", "6"])
def test_an_interface_has_an_address_until_it_is_taken_away(version: str, networks: TwoNetworks) -> None:
    has = {"4": machine.has_ipv4, "6": machine.has_ipv6}[version]
    host = networks.second_client
    with host.entered():
        assert has("eth0")
        assert not has("eth7")
        host.run("ip", f"-{version}", "addr", "flush", "dev", "eth0", "scope", "global")
        assert not has("eth0")  # an address of the link is not enough


def test_the_default_route_leaves_by_one_of_them(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        assert machine.leaves_by("outside")
        assert not machine.leaves_by("inside")


def test_a_default_route_of_ipv6_alone_is_one(networks: TwoNetworks) -> None:
    networks.client.run("ip", "-4", "route", "del", "default")
    try:
        with networks.client.entered():
            assert machine.leaves_by("eth0")
    finally:
        networks.client.run("ip", "-4", "route", "add", "default", "via", networks.gateway.ipv4)


def test_a_router_forwards_and_a_client_does_not(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        assert machine.forwards()
    with networks.client.entered():
        assert not machine.forwards()


def test_ipv6_is_on_where_it_is_not_off(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        assert not machine.ipv6_is_off()


def test_an_ordinary_user_is_found_with_what_belongs_to_him() -> None:
    user = machine.ordinary_user("nobody")
    assert user.name == "nobody"
    assert user.uid
    assert user.gid in user.groups


@pytest.mark.parametrize(
    ("name", "said"), [("root", "is root"), ("nobody-at-all", "there is no user"), ("\0", "no user")]
)
def test_anybody_else_is_not(name: str, said: str) -> None:
    with pytest.raises(Failure, match=said):
        machine.ordinary_user(name)
