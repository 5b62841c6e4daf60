"""A CDN that hands out 4 of its 400 addresses, another choice every second: no honest client is refused for that."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rdatatype
import dns.rrset
import pytest

from support.dns_server import DnsServer
from support.gateway import Program
from support.networks import MANY_V4, TwoNetworks
from support.origin import Origins
from support.transparent_gateway import TransparentGateway, redirected

pytestmark = pytest.mark.slow

NAME = "cdn.example"
CLIENT = Path(__file__).resolve().parents[1] / "clients" / "rotation.py"
SOURCES = [f"10.66.0.{number}" for number in range(100, 120)]
_POOL = [f"198.18.{number // 200}.{number % 200 + 1}" for number in range(400)]


def rule(check: str) -> str:
    return f"""
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {{name: cdn}}
spec:
  destination: {{services: [{NAME}], check: {check}}}
  ports: [{{port: 80, protocol: http}}]
"""


def rotating(clock: Callable[[], float]) -> Callable[[dns.message.Message], bytes]:
    """Answers with 4 addresses of the pool, chosen anew every second, which live for that long."""

    def tamper(response: dns.message.Message) -> bytes:
        question = response.question[0]
        response.answer.clear()
        if question.rdtype == dns.rdatatype.A:
            chosen = random.Random(int(clock())).sample(_POOL, 4)
            response.answer.append(dns.rrset.from_text(question.name, 1, "IN", "A", *chosen))
        return response.to_wire()

    return tamper


@pytest.fixture(scope="module")
def connections(program: Program) -> int:
    """How many are made; the addons are the same in both programs, and mitmdump takes longer to accept."""
    return 5000 if program == "gateway" else 1000


@pytest.fixture(scope="module")
def cdn(networks: TwoNetworks, module_origin: Origins) -> Iterator[None]:
    with networks.web.entered():
        module_origin.http("0.0.0.0")
    for source in SOURCES:
        networks.client.run("ip", "addr", "add", f"{source}/24", "dev", "eth0")
    yield
    for source in SOURCES:
        networks.client.run("ip", "addr", "del", f"{source}/24", "dev", "eth0")


def run_clients(networks: TwoNetworks, **wish: Any) -> dict[str, int]:
    asked = {"name": NAME, "name_server": networks.names.ipv4, "sources": SOURCES, "evil": networks.evil.ipv4} | wish
    done = networks.client.run(sys.executable, CLIENT, json.dumps(asked), timeout=240)
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


def test_with_the_gateway_as_name_server_nobody_is_refused_and_every_spoofed_one_is(
    cdn: None,
    connections: int,
    networks: TwoNetworks,
    internet_dns: DnsServer,
    transparent_gateway: Callable[..., TransparentGateway],
) -> None:
    internet_dns.set(NAME, [_POOL[0]])
    internet_dns.tamper = rotating(time.monotonic)
    gateway = transparent_gateway(rule("enforce"), modes=("transparent", "dns@{dns_port}"))
    with redirected(gateway), networks.evil.wire() as evil_wire:
        outcomes = run_clients(networks, connections=connections, spoofed=connections)
        evil_wire.assert_nothing_left(networks.evil.ipv4)
    asked = outcomes.pop("names asked for")
    assert outcomes == {"honest: 200": connections, "spoofed: 403 address_mismatch": connections}
    assert asked > len(SOURCES), "answers were asked for more than once, and used beyond their time to live"
    assert gateway.metric("egress_identity_mismatches_total", claim="address") == connections


def test_with_another_name_server_nobody_is_refused_where_the_rule_says_redial(
    cdn: None,
    connections: int,
    networks: TwoNetworks,
    internet_dns: DnsServer,
    transparent_gateway: Callable[..., TransparentGateway],
) -> None:
    internet_dns.set(NAME, _POOL[:4], ttl=1)
    gateway = transparent_gateway(rule("redial"))
    with redirected(gateway):
        outcomes = run_clients(networks, connections=connections, spoofed=0, pool=MANY_V4)
    assert outcomes == {"honest: 200": connections}
    dialled = {entry["upstream_host"] for entry in gateway.access_log()}
    assert dialled <= {f"{address}:80" for address in _POOL[:4]}
