"""A gateway on the inspect data path, and the rules its tests share."""

from collections.abc import Callable

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, Program

# Documentation addresses are "the internet" of the tests.
WEB, OTHER, SECOND = "203.0.113.10", "203.0.113.20", "203.0.113.30"


def rule(service: str, *ports: str, name: str = "", more: str = "") -> str:
    """A rule for `service`: `rule("www.example.com", "443 https")`."""
    lines = [
        "apiVersion: egress.mitmproxy/v1",
        "kind: EgressRule",
        f"metadata: {{name: {name or 'allow-' + service.replace('*', 'any').replace('.', '-')}}}",
        "spec:",
        "  destination:",
        f'    services: ["{service}"]',
        *([f"    {more}"] if more else []),
        "  ports:",
    ]
    for port in ports:
        number, protocol, *rest = port.split()
        lines.append(f"  - {{port: {number}, protocol: {protocol}{''.join(', ' + text for text in rest)}}}")
    return "\n".join(lines) + "\n"


RULES = "---\n".join(
    [
        rule("www.example.com", "80 http", "8080 http", "443 https"),
        rule("other.example.com", "80 http", "443 https"),
        rule("tcp.example.com", "25 tcp"),
        rule("*.any.example.com", "80 http", "443 https"),
    ]
)


@pytest.fixture
def make_rule() -> Callable[..., str]:
    return rule


@pytest.fixture
def rules() -> str:
    """`RULES`, for a gateway of a module's own."""
    return RULES


@pytest.fixture(scope="module", params=["mitmdump", "gateway"])
def program(request: pytest.FixtureRequest) -> Program:
    """mitmdump with the script, then the runner, with two workers that share a port."""
    which: Program = request.param
    return which


@pytest.fixture
def names(dns: DnsServer) -> DnsServer:
    """The names of `RULES`, and one that no rule allows."""
    dns.set("www.example.com", [WEB])
    dns.set("other.example.com", [OTHER])
    dns.set("tcp.example.com", [WEB])
    dns.set("evil.example", [SECOND])
    return dns


@pytest.fixture
def inspect(shared_gateway: Callable[..., Gateway], names: DnsServer) -> Gateway:
    """A running gateway with `RULES`, shared by the tests of a module."""
    return shared_gateway(RULES, data_path="inspect")
