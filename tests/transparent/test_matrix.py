"""Every way in, every lie, both IP versions, every check, both data paths; each looked at from both ends.

A client that knows of no gateway dials an address and names a host. `web` is where the allowed hosts live, `evil` is
somebody else, who would answer to every name. What the client saw must be what the row says; the evil host's interface
must have seen nothing at all, and the true host exactly what was allowed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.http import client_hello, read_alert, read_response, request_over, tls_client
from support.lab import ACCESS_DENIED, UNRECOGNIZED_NAME
from support.networks import TwoNetworks
from support.origin import Connection, HttpOrigin, Origins
from support.transparent_gateway import TransparentGateway, redirected
from support.wire import Wire

CHECKS = ("enforce", "redial", "audit")
ALLOWED = {check: f"{check}.example" for check in CHECKS}
DENIED = "denied.example"
RULES = "".join(
    f"""---
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {{name: {check}}}
spec:
  destination: {{services: [{host}], check: {check}}}
  ports: [{{port: 80, protocol: http}}, {{port: 443, protocol: https}}]
"""
    for check, host in ALLOWED.items()
)
Way = Literal["http on 80", "http on 443", "https"]
WAYS: tuple[Way, ...] = ("http on 80", "http on 443", "https")
PORT = {"http on 80": 80, "http on 443": 443, "https": 443}
PASSES = "passes"


@dataclass(frozen=True)
class Lie:
    """What a client dials and says. `ALLOWED`, `EVIL` and `DENIED` in a text stand for the host or address."""

    dials: Literal["web", "evil"]
    says: str = ""
    """The Host header, or the SNI; empty: nothing."""
    target: str = "/"
    """Of the HTTP request."""
    minor: int = 1
    """Of the HTTP version."""


HTTP_CASES = {
    "allowed": (Lie("web", "ALLOWED"), dict.fromkeys(CHECKS, PASSES)),
    "denied": (Lie("evil", "DENIED"), dict.fromkeys(CHECKS, "no_rule")),
    "spoofed Host": (Lie("evil", "ALLOWED"), {"enforce": "address_mismatch", "redial": PASSES, "audit": PASSES}),
    "spoofed URI": (Lie("evil", "DENIED", "http://ALLOWED/"), dict.fromkeys(CHECKS, "host_mismatch")),
    "no name": (Lie("evil", minor=0), dict.fromkeys(CHECKS, "no_rule")),
    "address only": (Lie("evil", "EVIL"), dict.fromkeys(CHECKS, "no_rule")),
}
TLS_CASES = {
    "allowed": HTTP_CASES["allowed"],
    "denied": HTTP_CASES["denied"],
    # The Host inside passes unread: it is the SNI that is judged, and it names somebody that no rule allows.
    "spoofed Host": (Lie("evil", "DENIED", "ALLOWED inside"), dict.fromkeys(CHECKS, "no_rule")),
    "spoofed SNI": (Lie("evil", "ALLOWED"), {"enforce": "address_mismatch", "redial": PASSES, "audit": PASSES}),
    "no name": (Lie("evil"), dict.fromkeys(CHECKS, "no_rule")),
    "address only": (Lie("evil", "EVIL"), dict.fromkeys(CHECKS, "sni_malformed")),
}
ROWS = [
    pytest.param(way, lie, check, outcome[check], id=f"{way}, {name}, {check}")
    for way in WAYS
    for name, (lie, outcome) in (TLS_CASES if way == "https" else HTTP_CASES).items()
    for check in CHECKS
]


@dataclass
class World:
    """Both ends, for one IP version."""

    gateway: TransparentGateway
    networks: TwoNetworks
    ca: SessionCa
    web: str
    evil: str
    true: list[dict[int, HttpOrigin]]
    """The true hosts' servers, by port, for both IP versions."""

    def came(self, port: int) -> list[Connection]:
        """The connections that the true hosts have had on `port`."""
        return [connection for servers in self.true for connection in servers[port].connections]

    def shown(self, text: str, check: str) -> str:
        address = f"[{self.evil}]" if ":" in self.evil else self.evil
        return text.replace("ALLOWED", ALLOWED[check]).replace("DENIED", DENIED).replace("EVIL", address)


@pytest.fixture(scope="module")
def servers(
    networks: TwoNetworks, module_internet_dns: DnsServer, module_origin: Origins, ca: SessionCa
) -> dict[str, dict[int, HttpOrigin]]:
    """By address and port. The evil ones would answer to every name, with a certificate that clients trust."""
    certificate = ca.issue(*ALLOWED.values(), DENIED)
    for host in ALLOWED.values():
        module_internet_dns.set(host, [networks.web.ipv4, networks.web.ipv6])
    module_internet_dns.set(DENIED, [networks.evil.ipv4, networks.evil.ipv6])
    made = {}
    for machine in (networks.web, networks.evil):
        for address in (machine.ipv4, machine.ipv6):
            with machine.entered():
                made[address] = {
                    80: module_origin.http(address),
                    443: module_origin.https(address, "", certificate=certificate),
                }
    return made


@pytest.fixture(scope="module", params=["ipv4", "ipv6"])
def world(
    request: pytest.FixtureRequest,
    networks: TwoNetworks,
    servers: dict[str, dict[int, HttpOrigin]],
    ca: SessionCa,
    transparent_gateway: Callable[..., TransparentGateway],
    data_path: str,
) -> Iterator[World]:
    web, evil = getattr(networks.web, request.param), getattr(networks.evil, request.param)
    gateway = transparent_gateway(RULES, data_path=data_path)
    true = [servers[networks.web.ipv4], servers[networks.web.ipv6]]
    with redirected(gateway):
        yield World(gateway, networks, ca, web, evil, true)


@pytest.fixture
def evil_saw_nothing(networks: TwoNetworks, world: World) -> Iterator[Wire]:
    with networks.evil.wire() as wire:
        yield wire
        wire.assert_nothing_left(world.evil)


def ask_http(world: World, way: Way, lie: Lie, check: str) -> str:
    """What a plain HTTP client is told: "passes", or the reason that it is not let through."""
    address = world.web if lie.dials == "web" else world.evil
    host = world.shown(lie.says, check)
    with world.networks.client.connect(address, PORT[way]) as sock:
        if lie.minor == 0:
            sock.sendall(f"GET {lie.target} HTTP/1.0\r\n\r\n".encode())
            reply = read_response(sock)
        else:
            reply = request_over(sock, "GET", world.shown(lie.target, check), {"Host": host})
    reason = reply.header("x-egress-reason")
    if reason is None:
        assert reply.status == 200, reply
        return PASSES
    assert reply.status in (403, 421), reply
    return reason


def ask_tls(world: World, lie: Lie, check: str) -> str:
    """The same for TLS; a reason is read in the access log, since an alert says only that it was refused."""
    address = world.web if lie.dials == "web" else world.evil
    sni = world.shown(lie.says, check).strip("[]")
    seen = len(world.gateway.access_log())
    with world.networks.client.connect(address, 443) as sock:
        if lie.says == "ALLOWED":
            with contextlib.suppress(OSError), tls_client(sock, sni, world.ca.pem_path) as tls:
                assert request_over(tls, "GET", "/", {"Host": ALLOWED[check]}).status == 200
                return PASSES
        else:
            sock.sendall(client_hello(sni, no_sni=not sni))
            assert read_alert(sock) in (ACCESS_DENIED, UNRECOGNIZED_NAME)
    entry = world.gateway.wait_for_log(lambda entry: entry in world.gateway.access_log()[seen:])
    assert entry["verdict"] == "deny"
    reason: str = entry["reason"]
    return reason


@pytest.mark.parametrize(("way", "lie", "check", "expected"), ROWS)
def test_matrix(
    way: Way, lie: Lie, check: str, expected: str, world: World, evil_saw_nothing: Wire, data_path: str
) -> None:
    mismatches = world.gateway.metric("egress_identity_mismatches_total", claim="address")
    before = world.came(80) + world.came(443)
    lines = len(world.gateway.access_log())
    outcome = ask_tls(world, lie, check) if way == "https" else ask_http(world, way, lie, check)
    assert outcome == expected

    evil_saw_nothing.assert_nothing_left(world.evil)
    came = [connection for connection in world.came(80) + world.came(443) if connection not in before]
    assert len(came) == (1 if expected == PASSES else 0)
    if came:
        assert came[0] in world.came(PORT[way])
        assert came[0].sni == (None if PORT[way] == 80 else ALLOWED[check])

    lied = lie.says == "ALLOWED" and lie.dials == "evil"
    entry = world.gateway.wait_for_log(lambda entry: entry in world.gateway.access_log()[lines:])
    counted = world.gateway.metric("egress_identity_mismatches_total", claim="address") - mismatches
    assert counted == (1 if lied and check != "redial" else 0)
    dialled = world.web if lie.dials == "web" else world.evil
    assert entry["original_destination"].rpartition(":")[0].strip("[]") == dialled
    assert entry["verdict"] == ("allow" if expected == PASSES else "deny")
    if expected == PASSES:
        assert entry["upstream_host"].rpartition(":")[0].strip("[]") in (world.web, *_both(world))
    if lied:
        assert entry["address_check"] == {"enforce": "mismatch", "redial": "redialled", "audit": "audited"}[check]
        assert f"{world.evil} is not an address of {ALLOWED[check]}" in entry["detail"]


def _both(world: World) -> tuple[str, str]:
    """A redialled name may be reached at any of its addresses, whichever IP version the client had chosen."""
    return world.networks.web.ipv4, world.networks.web.ipv6
