"""What is asked of the machine before anything is changed, next to what ip(8) says of it."""

from __future__ import annotations

import json
from ipaddress import ip_interface

import pytest

from egress_gateway.network import machine
from egress_gateway.network.checks import answers
from egress_gateway.network.layout import Answer
from egress_gateway.network.terminal import Failure
from support.networks import TwoNetworks

pytestmark = [pytest.mark.private_network, pytest.mark.root]


def test_interfaces_are_those_of_this_network(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        assert sorted(machine.interfaces()) == ["inside", "lo", "outside"]


@pytest.mark.parametrize("interface", ["inside", "outside", "lo"])
def test_addresses_are_those_that_ip_shows(interface: str, networks: TwoNetworks) -> None:
    shown = json.loads(networks.gateway.run("ip", "-json", "addr", "show", "dev", interface).stdout)
    expected = [
        ip_interface(f"{info['local']}/{info['prefixlen']}")
        for info in shown[0]["addr_info"]
        if info["scope"] != "link"
    ]
    with networks.gateway.entered():
        assert machine.addresses(interface) == expected
        assert expected


def test_there_are_no_addresses_where_there_is_no_interface(networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        assert machine.addresses("eth7") == []


def test_only_several_networks_of_a_kind_need_to_be_known(networks: TwoNetworks) -> None:
    host = networks.gateway
    with host.entered():
        assert answers(["inside"]) == ()
    extra = ["10.66.0.9/24", "10.67.0.1/24"]
    for address in extra:
        host.run("ip", "addr", "add", address, "dev", "inside")
    try:
        with host.entered():
            assert answers(["inside", "outside"]) == (
                Answer("inside", "10.66.0.0/24", "10.66.0.1"),  # not .9, which comes second
                Answer("inside", "10.67.0.0/24", "10.67.0.1"),
            )
    finally:
        for address in extra:
            host.run("ip", "addr", "del", address, "dev", "inside")


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
