"""`tcp` rules in transparent mode: nobody says a name, and the destination may speak first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.dns_server import DnsServer
from support.lab import rule
from support.networks import TwoNetworks
from support.origin import SSH_GREETING, Origins
from support.sockets import read_exactly
from support.transparent_gateway import TransparentGateway
from support.wire import Wire

DB = "db.example"
RULES = (
    rule("by-name", DB, "5432 tcp")
    + rule("by-network", ["198.18.5.0/24", "2001:db8:1::/64"], "25 tcp")
    + rule("shop", "www.example", "5432 https")
)


@pytest.fixture
def gateway(
    transparent_gateway: Callable[..., TransparentGateway],
    redirect: Callable[..., None],
    networks: TwoNetworks,
    internet_dns: DnsServer,
    data_path: str,
) -> TransparentGateway:
    internet_dns.set(DB, [networks.web.ipv4, networks.web.ipv6])
    started = transparent_gateway(RULES, data_path=data_path)
    redirect(started, 25, 5432)
    return started


@pytest.mark.parametrize("address", ["198.18.5.9", "2001:db8:1::9"])
def test_by_network_a_server_speaks_first(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, address: str
) -> None:
    with networks.web.entered():
        server = origin.tcp(address, 25, greeting=SSH_GREETING)
    with networks.client.connect(address, 25) as sock:
        assert read_exactly(sock, len(SSH_GREETING)) == SSH_GREETING
        sock.sendall(b"EHLO there\r\n")
        assert read_exactly(sock, 12) == b"EHLO there\r\n"
    assert len(server.connections) == 1
    entry = gateway.wait_for_log(rule="default/by-network", authority=_authority(address, 25))
    assert (entry["verdict"], entry["protocol"]) == ("allow", "TCP")


@pytest.mark.parametrize("address", ["198.18.6.9", "2001:db8:2::9"])
def test_an_address_beside_the_network_is_refused_without_waiting_for_a_word(
    gateway: TransparentGateway, networks: TwoNetworks, address: str
) -> None:
    with networks.evil.wire() as evil_wire:
        with networks.client.connect(address, 25, timeout=2) as sock:
            assert sock.recv(1) == b""
        evil_wire.assert_nothing_left(address)
    entry = gateway.wait_for_log(authority=_authority(address, 25))
    assert (entry["verdict"], entry["reason"]) == ("deny", "no_rule")


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_by_name_the_addresses_that_the_name_has(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, family: str
) -> None:
    address = getattr(networks.web, family)
    with networks.web.entered():
        origin.tcp(address, 5432, greeting=b"hello from the database\n")
    with networks.client.connect(address, 5432) as sock:
        assert read_exactly(sock, 24) == b"hello from the database\n"
    entry = gateway.wait_for_log(rule="default/by-name", original_destination=_authority(address, 5432))
    assert (entry["authority"], entry["address_check"]) == (f"{DB}:5432", "match")


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_by_name_no_other_address(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, evil_wire: Wire, family: str
) -> None:
    address = getattr(networks.evil, family)
    with networks.evil.entered():
        origin.tcp(address, 5432, greeting=b"hello from somebody else\n")
    with networks.client.connect(address, 5432) as sock:
        sock.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # as PostgreSQL's clients begin
        assert sock.recv(1) == b""
    evil_wire.assert_nothing_left(address)


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
