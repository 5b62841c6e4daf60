"""What clients ask, whichever name server they think they ask: UDP and TCP, IPv4 and IPv6, through the redirect."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator

import pytest

from support.dns_server import DnsServer
from support.http import request_over
from support.lab import rule
from support.networks import TwoNetworks
from support.origin import Origins
from support.resolve import ask, resolve
from support.transparent_gateway import TransparentGateway, redirected
from support.waiting import eventually

NAME, WILD = "www.example.com", "*.wild.example"
SERVERS = ["9.9.9.9", "203.0.113.53", "10.66.0.1", "2620:fe::fe", "2001:db8::53", "fd66::1"]


@pytest.fixture(scope="module")
def gateway(
    networks: TwoNetworks,
    module_internet_dns: DnsServer,
    transparent_gateway: Callable[..., TransparentGateway],
    data_path: str,
) -> Iterator[TransparentGateway]:
    module_internet_dns.set(NAME, [networks.web.ipv4, networks.web.ipv6])
    rules = rule("www", NAME, "80 http") + rule("wild", WILD, "80 http")
    gateway = transparent_gateway(rules, data_path=data_path, modes=("transparent", "dns@{dns_port}"))
    with redirected(gateway):
        yield gateway


@pytest.mark.parametrize("server", SERVERS)
def test_whoever_is_asked_the_gateway_answers(gateway: TransparentGateway, networks: TwoNetworks, server: str) -> None:
    with networks.evil.wire() as evil_wire:
        assert resolve(networks.client, NAME, "A", server) == [networks.web.ipv4]
        assert resolve(networks.second_client, NAME, "AAAA", server) == [networks.web.ipv6]
        assert not [packet for packet in evil_wire.packets if 53 in (packet.sport, packet.dport)]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_as_dig_sees_it(gateway: TransparentGateway, networks: TwoNetworks, server: str, transport: str) -> None:
    said = networks.client.run("dig", f"@{server}", NAME, "A", transport, "+tries=1", "+time=10").stdout
    assert "status: NOERROR" in said
    assert networks.web.ipv4 in said
    said = networks.client.run("dig", f"@{server}", "denied.example", "A", transport, "+tries=1", "+time=10").stdout
    assert "status: REFUSED" in said


def test_a_name_that_no_rule_allows_is_nowhere_on_the_wire(
    gateway: TransparentGateway, networks: TwoNetworks, internet_dns: DnsServer
) -> None:
    """Threat 22: names as messages."""
    secrets = [base64.b32encode(os.urandom(30)).decode().lower() for _ in range(25)]
    with networks.gateway.wire("outside") as wire:
        for secret in secrets:
            for name in (f"{secret}.exfiltrated.example", f"{secret}.{NAME}", "x" * 60 + f".{WILD[2:]}"):
                assert ask(networks.client, name).rcode() == 5
        assert wire.dns_queries() == []
    assert internet_dns.queries == []
    gateway.wait_for_metric("egress_decisions_total", 75, action="deny", protocol="dns")


def test_what_a_client_was_told_it_may_dial(
    gateway: TransparentGateway, networks: TwoNetworks, internet_dns: DnsServer, origin: Origins
) -> None:
    """The name has another address by the time that the client dials the one it was told."""
    name, then, now = "told.wild.example", "198.18.9.1", "198.18.9.2"
    internet_dns.set(name, [then], ttl=0)
    with networks.web.entered():
        origin.http(then)
    assert resolve(networks.client, name) == [then]
    internet_dns.set(name, [now], ttl=0)
    for client in (networks.client, networks.second_client):
        with client.connect(then, 80) as sock:
            assert request_over(sock, "GET", "/", {"Host": name}).status == 200
    with networks.client.connect("198.18.9.3", 80) as sock:
        assert request_over(sock, "GET", "/", {"Host": name}).header("x-egress-reason") == "address_mismatch"
    # Which a worker tells once a second.
    assert eventually(lambda: gateway.metric("egress_names") >= 1, "no name is counted")


@pytest.mark.parametrize("address", ["10.0.0.5", "127.0.0.1", "169.254.169.254", "fd00::5", "::1", "10.66.0.1"])
def test_an_inner_address_is_not_handed_out(
    gateway: TransparentGateway, networks: TwoNetworks, internet_dns: DnsServer, address: str
) -> None:
    name = "inner.wild.example"
    internet_dns.set(name, [address], ttl=0)
    kind = "AAAA" if ":" in address else "A"
    assert resolve(networks.client, name, kind) == []
    internet_dns.set(name, [address, networks.web.ipv4, networks.web.ipv6], ttl=0)
    public = networks.web.ipv6 if ":" in address else networks.web.ipv4
    assert resolve(networks.client, name, kind) == [public]
