"""`tcp` rules in transparent mode: nobody says a name, and the destination may speak first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import read_reply
from support.http import client_hello, request_over, tls_client
from support.lab import ended_without_a_word, rule, say
from support.networks import TwoNetworks
from support.origin import SSH_GREETING, Origins
from support.sockets import read_exactly
from support.transparent_gateway import TransparentGateway
from support.wire import Wire

HELLO_TIMEOUT = 10  # seconds that a client has for its first bytes, unless an option says otherwise
DB, MIXED, SHOP = "db.example", "mixed.example", "shop.example"
RULES = (
    rule("by-name", DB, "5432 tcp")
    + rule("by-network", ["198.18.5.0/24", "2001:db8:1::/64"], "25 tcp")
    + rule("mixed", MIXED, "443 tcp")
    + rule("shop", SHOP, "443 https")
)


@pytest.fixture
def gateway(
    transparent_gateway: Callable[..., TransparentGateway],
    redirect: Callable[..., None],
    networks: TwoNetworks,
    internet_dns: DnsServer,
    data_path: str,
) -> TransparentGateway:
    for name in (DB, MIXED, SHOP):
        internet_dns.set(name, [networks.web.ipv4, networks.web.ipv6])
    started = transparent_gateway(RULES, data_path=data_path)
    redirect(started, 25, 443, 5432)
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
        with networks.client.connect(address, 25, timeout=0.8 * HELLO_TIMEOUT) as sock:
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
    # As PostgreSQL's clients begin.
    ended_without_a_word(networks.client.connect(address, 5432), b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
    evil_wire.assert_nothing_left(address)


def test_where_another_rule_reads_names_on_the_port_the_name_that_is_said_counts(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, ca: SessionCa
) -> None:
    """Two hosts at one address: plain HTTP for the one with TLS origination must not leave as it is."""
    web = networks.web.ipv4
    with networks.web.entered():
        server = origin.https(web, SHOP, certificate=ca.issue(SHOP, MIXED))
    with networks.client.connect(web, 443) as sock:
        assert request_over(sock, "GET", "/originated", {"Host": SHOP}).status == 200
    with networks.client.connect(web, 443) as sock, tls_client(sock, MIXED, ca.pem_path) as tls:
        assert request_over(tls, "GET", "/bytes", {"Host": MIXED}).status == 200
    for host in ("denied.example", networks.web.ipv4):
        with networks.client.connect(web, 443) as sock:
            assert request_over(sock, "GET", "/", {"Host": host}).header("x-egress-reason") == "no_rule"
    assert [connection.sni for connection in server.connections] == [SHOP, MIXED]


@pytest.mark.parametrize(
    "words", [b"\x00\x00\x00\x08\x04\xd2\x16\x2f", client_hello(no_sni=True)], ids=["bytes", "no SNI"]
)
def test_there_a_client_that_names_nobody_is_one_of_bytes(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, words: bytes
) -> None:
    with networks.web.entered():
        origin.tcp(networks.web.ipv4, 443)
    with networks.client.connect(networks.web.ipv4, 443) as sock:
        sock.sendall(words)
        assert read_exactly(sock, len(words)) == words
    gateway.wait_for_log(rule="default/mixed", authority=f"{MIXED}:443")
    with networks.client.connect("198.18.7.7", 443) as sock:
        say(sock, words)
        assert words[:1] not in read_reply(sock)[:1]


def _authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
