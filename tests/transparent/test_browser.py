"""A browser on a machine that knows of no proxy: a page of ten parts from several hosts.

The hosts offer HTTP/3, in an HTTPS record and in every answer, so the browser tries QUIC, which never passes: it must
hear so at once and go on over TCP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.browser import find_browser, load_page
from support.ca import Certificate, SessionCa
from support.dns_server import DnsServer
from support.lab import rule
from support.machine import Ended, Machine
from support.networks import TwoNetworks
from support.origin import FileOrigin, Origins
from support.transparent_gateway import MODES, TransparentGateway, guarded
from support.wire import DnsQuestion, Packet

pytestmark = pytest.mark.skipif(find_browser() is None, reason="Chromium is not installed (scripts/test installs it)")

RULES = rule("shop", "*.shop.example", "80 http", "443 https")
IN_TIME = 45.0
"""Seconds, nearly all of them a busy machine's: a page that waits for somebody who never answers takes longer. It would
not tell QUIC that is refused from QUIC that is dropped, since a browser does not wait for one alone: that is seen in
the packets."""

# Both IP versions, and each of them alone.
ADDRESSES = {
    "www.shop.example": ["203.0.113.20", "2001:db8:1::20"],
    "static.shop.example": ["203.0.113.21"],
    "cdn.shop.example": ["2001:db8:1::22"],
    "api.eu.shop.example": ["203.0.113.23", "2001:db8:1::23"],
}
PAGE = "https://www.shop.example/"
PARTS = {
    *(f"{PAGE}{number}.js" for number in range(3)),
    *(f"https://static.shop.example/{number}.js" for number in range(3)),
    *(f"https://cdn.shop.example/{number}.js" for number in range(3)),
    "https://api.eu.shop.example/0.js",
}
HTML = f"""<!doctype html>
<title>shop</title>
<p id=loaded></p>
<script>const said = [];</script>
{"".join(f'<script src="{part}"></script>' for part in sorted(PARTS))}
<script>
addEventListener("load", () => {{ document.getElementById("loaded").textContent = `${{said.length}} parts ran`; }});
</script>
"""


@dataclass(frozen=True, slots=True)
class Shop:
    origins: list[FileOrigin]
    certificate: Certificate

    def fetched(self) -> set[str]:
        """The URLs that were answered with what they ask for."""
        fetched = [fetched for origin in self.origins for fetched in origin.fetched]
        return {f"https://{one.host}{one.target}" for one in fetched if one.status == 200}


@pytest.fixture(scope="module")
def shop(
    networks: TwoNetworks,
    module_internet_dns: DnsServer,
    module_origin: Origins,
    ca: SessionCa,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "index.html").write_text(HTML)
    (folder / "other.html").write_text(HTML.replace("<p", '<script src="https://denied.example/0.js"></script><p', 1))
    for number in range(3):
        (folder / f"{number}.js").write_text("said.push(document.currentScript.src);\n")
    certificate = ca.issue("*.shop.example", "*.eu.shop.example")
    offer = {"Alt-Svc": 'h3=":443"; ma=3600'}
    origins = []
    for host, addresses in ADDRESSES.items():
        module_internet_dns.set(host, addresses)
        module_internet_dns.record(host, "HTTPS", "1 . alpn=h3,h2")
        with networks.web.entered():
            origins += [
                module_origin.start(FileOrigin(at, 443, folder=folder, headers=offer, certificate=certificate))
                for at in addresses
            ]
    module_internet_dns.set("denied.example", [networks.evil.ipv4, networks.evil.ipv6])
    return Shop(origins, certificate)


@pytest.fixture(scope="module")
def gateway(
    request: pytest.FixtureRequest, transparent_gateway: Callable[..., TransparentGateway], shop: Shop
) -> Iterator[TransparentGateway]:
    started = transparent_gateway(RULES, data_path=request.param, modes=MODES)
    with guarded(started):
        yield started


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit to a page, from everywhere."""

    ended: Ended
    fetched: set[str]
    client: list[Packet]
    web: list[Packet]
    evil: list[Packet]
    asked_inside: list[DnsQuestion]
    asked_outside: list[DnsQuestion]


@pytest.fixture
def visit(
    networks: TwoNetworks, gateway: TransparentGateway, shop: Shop, desk: Machine, tmp_path: Path
) -> Callable[..., Visit]:
    def visit(url: str, *flags: str) -> Visit:
        for origin in shop.origins:
            origin.fetched.clear()
        with (
            networks.client.wire() as client,
            networks.web.wire() as web,
            networks.evil.wire() as evil,
            networks.names.wire() as names,
        ):
            ended = load_page(desk, url, shop.certificate, tmp_path / "profile", *flags).check()
        questions = client.dns_queries(), names.dns_queries()
        return Visit(ended, shop.fetched(), client.packets, web.packets, evil.packets, *questions)

    return visit


def check(visit: Visit, networks: TwoNetworks) -> None:
    """What must be true of every visit."""
    assert "10 parts ran" in visit.ended.out, visit.ended.said
    assert visit.fetched >= PARTS
    assert visit.ended.seconds < IN_TIME
    assert {question.server for question in visit.asked_inside} == {networks.gateway.ipv4}
    # A browser asks for names of its maker's too.
    assert {question.name for question in visit.asked_outside} <= set(ADDRESSES)
    assert not [packet for packet in visit.web if packet.proto == "udp"]
    assert not [packet for packet in visit.evil if packet.proto != "icmp6"]  # the router looks for its neighbours


def quic(packets: list[Packet]) -> list[Packet]:
    return [packet for packet in packets if packet.proto == "udp" and packet.dport == 443]


@pytest.mark.parametrize("gateway", ["relay", "inspect"], indirect=True)
def test_all_parts_come_though_quic_is_tried(
    visit: Callable[..., Visit], networks: TwoNetworks, gateway: TransparentGateway
) -> None:
    seen = visit(PAGE)
    check(seen, networks)
    assert {question.type for question in seen.asked_inside if question.name in ADDRESSES} == {"A", "AAAA", "HTTPS"}
    # The error has the packet in it, by which the browser's kernel knows whom to tell.
    tried = {packet.sport.to_bytes(2) + b"\x01\xbb" for packet in quic(seen.client)}
    errors = [packet.payload for packet in seen.client if packet.proto.startswith("icmp")]
    assert tried
    assert any(ports in payload for ports in tried for payload in errors)
    for host in ADDRESSES:
        gateway.wait_for_log(requested_server_name=host, verdict="allow", tls_mode="passthrough")


@pytest.mark.parametrize("gateway", ["relay"], indirect=True)
def test_without_quic(visit: Callable[..., Visit], networks: TwoNetworks) -> None:
    seen = visit(PAGE, "--disable-quic")
    check(seen, networks)
    assert not quic(seen.client)


@pytest.mark.parametrize("gateway", ["relay"], indirect=True)
def test_a_part_of_a_host_without_a_rule_stays_out_and_holds_nothing_up(
    visit: Callable[..., Visit], networks: TwoNetworks
) -> None:
    seen = visit(f"{PAGE}other.html")
    check(seen, networks)
    assert "denied.example" in {question.name for question in seen.asked_inside}
