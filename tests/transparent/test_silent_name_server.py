"""The internet's name server stops answering: what is known goes on, the rest is refused fast, nothing hangs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.http import client_hello, read_alert, request_over, tls_client
from support.lab import INTERNAL_ERROR, rule
from support.networks import TwoNetworks
from support.origin import Origins
from support.resolve import resolve
from support.transparent_gateway import TransparentGateway, redirected
from support.waiting import eventually

KNOWN, UNKNOWN = "known.example", "unknown.example"
AFTERWARDS = "afterwards.example"  # known to the gateway at the end of one test: the others cannot have it as unknown
RULES = rule("all", [KNOWN, UNKNOWN, AFTERWARDS], "80 http", "443 https")
DNS_TIMEOUT = 2


@pytest.fixture
def gateway(
    transparent_gateway: Callable[..., TransparentGateway],
    networks: TwoNetworks,
    internet_dns: DnsServer,
    origin: Origins,
    data_path: str,
) -> Iterator[TransparentGateway]:
    """One whose client has asked for the known name, and whose name server then falls silent."""
    web = networks.web
    for name in (KNOWN, UNKNOWN, AFTERWARDS):
        internet_dns.set(name, [web.ipv4], ttl=1)
    with web.entered():
        origin.http(web.ipv4)
        origin.https(web.ipv4, KNOWN)
    options = {"egress_dns_timeout": DNS_TIMEOUT}
    gateway = transparent_gateway(RULES, options, data_path=data_path, modes=("transparent", "dns@{dns_port}"))
    with redirected(gateway):
        # An earlier test may have left the gateway believing that the name server is silent.
        eventually(lambda: resolve(networks.client, KNOWN) == [web.ipv4], "an answer", timeout=30, every=0.2)
        internet_dns.silent = True
        time.sleep(1.1)  # the answer's time to live is over; the grace is not
        yield gateway


def test_a_known_name_goes_on(
    gateway: TransparentGateway, networks: TwoNetworks, internet_dns: DnsServer, ca: SessionCa
) -> None:
    internet_dns.clear()
    for _ in range(20):
        with networks.client.connect(networks.web.ipv4, 80) as sock:
            assert request_over(sock, "GET", "/", {"Host": KNOWN}).status == 200
        with (
            networks.client.connect(networks.web.ipv4, 443) as sock,
            tls_client(sock, KNOWN, ca.pem_path) as tls,
        ):
            assert request_over(tls, "GET", "/", {"Host": KNOWN}).status == 200
    assert internet_dns.queries == [], "the silent name server was asked, and waited for"


def test_others_are_refused_with_df_and_soon_at_once(
    gateway: TransparentGateway, networks: TwoNetworks, internet_dns: DnsServer
) -> None:
    """Each worker learns for itself that the name server is silent. Only who waits for it asks for both families: who
    sees whether it is back asks for one, and is refused at once.
    """
    for number in range(3 + 2 * gateway.workers):
        with networks.client.connect(networks.web.ipv4, 80) as sock:
            reply = request_over(sock, "GET", f"/{number}", {"Host": UNKNOWN})
        assert (reply.status, reply.header("x-egress-reason")) == (502, "name_not_resolved")
        assert gateway.wait_for_log(path=f"/{number}")["response_flags"] == "DF"
        assert internet_dns.count(UNKNOWN, "AAAA") <= number + 1, "it was asked again before the client heard"
    assert internet_dns.count(UNKNOWN, "AAAA") <= gateway.workers, internet_dns.queries
    with networks.client.connect(networks.web.ipv4, 443) as sock:
        sock.sendall(client_hello(UNKNOWN))
        assert read_alert(sock) == INTERNAL_ERROR
    entry = gateway.wait_for_log(requested_server_name=UNKNOWN)
    assert (entry["reason"], entry["response_flags"]) == ("name_not_resolved", "DF")


def test_an_address_that_is_not_known_for_a_known_name_is_refused_too(
    gateway: TransparentGateway, networks: TwoNetworks
) -> None:
    with networks.evil.wire() as evil_wire:
        with networks.client.connect(networks.evil.ipv4, 80) as sock:
            reply = request_over(sock, "GET", "/", {"Host": KNOWN})
        assert reply.header("x-egress-reason") == "name_not_resolved"
        evil_wire.assert_nothing_left(networks.evil.ipv4)


def test_it_all_comes_back_when_the_name_server_does(
    gateway: TransparentGateway, networks: TwoNetworks, internet_dns: DnsServer
) -> None:
    with networks.client.connect(networks.web.ipv4, 80) as sock:
        assert request_over(sock, "GET", "/", {"Host": AFTERWARDS}).status == 502
    internet_dns.silent = False
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with networks.client.connect(networks.web.ipv4, 80) as sock:
            if request_over(sock, "GET", "/", {"Host": AFTERWARDS}).status == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the name server is back, and its names are not")
