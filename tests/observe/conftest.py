"""Exchanges to observe, and texts that a hostile client would send."""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Hostname
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import Destination, EgressRule, ExactName, Port, Protocol, Source, Wildcard
from egress_gateway.policy.verdict import Treatment, Verdict, refuse
from support.exchanges import change, exchange

HOSTILE = [
    'a\r\nistio_requests_total{destination_service="evil"} 7\r\n',
    '"},{"verdict":"allow","x":"',
    "\\",
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "\u202egnp.exe",
    "line\u2028separator\u0085next",
    "\x00\x7f",
    "\ud800\udfff\udc80",
    "%s {0} ${HOME}",
    "<script>alert(1)</script>",
    "x" * 100_000,
    "\U0001f600" * 5_000,
]


@pytest.fixture(params=HOSTILE, ids=lambda text: ascii(text[:12]))
def hostile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _rule(name: str = "googleapis", *destinations: str) -> EgressRule:
    found: list[Destination] = [
        Wildcard(text[1:]) if text.startswith("*") else ExactName(Hostname(text))
        for text in destinations or ("www.googleapis.com",)
    ]
    ports = (Port(443, Protocol.HTTPS),)
    return EgressRule("default", name, tuple(found), ports, source=Source("rules/google.yaml", 3))


@pytest.fixture
def rule() -> Callable[..., EgressRule]:
    """Makes a rule from a name and its destinations."""
    return _rule


@pytest.fixture
def request_() -> Callable[..., Exchange]:
    """Makes an exchange: an allowed HTTP request that was answered, unless told otherwise."""
    return _request


def _request(**changes: Any) -> Exchange:
    verdict = Verdict(Treatment.ORIGINATE, Reason.ALLOWED, _rule(), 443)
    made = exchange(
        start_time=1763914149.5,
        client=("203.0.113.7", 51234),
        protocol="HTTP/1.1",
        method="GET",
        path="/books/v1/volumes?q=isbn",
        authority="www.googleapis.com:443",
        host=Hostname("www.googleapis.com"),
        port=443,
        verdict=verdict,
        response_code=200,
        bytes_received=10,
        bytes_sent=1229,
        duration=0.035,
        upstream=(ip_address("142.250.1.1"), 443),
        resolved=(ip_address("142.250.1.1"), ip_address("2a00:1450::1")),
        tls_mode="originate",
        request_id="7b1c",
    )
    return change(made, **changes)


@pytest.fixture
def tunnel() -> Callable[..., Exchange]:
    """Makes an exchange: an allowed TLS tunnel that has ended, unless told otherwise."""

    def make(**changes: Any) -> Exchange:
        facts = {
            "protocol": "TLS",
            "method": "CONNECT",
            "path": "",
            "verdict": Verdict(Treatment.PASSTHROUGH, Reason.ALLOWED, _rule(), 443),
            "requested_server_name": "www.googleapis.com",
            "tls_mode": "passthrough",
            "bytes_received": 1229,
            "bytes_sent": 5427,
            "duration": 2.1,
        }
        return _request(**(facts | changes))

    return make


@pytest.fixture
def refused() -> Callable[..., Exchange]:
    """Makes an exchange: a request that no rule allows, unless told otherwise."""

    def make(**changes: Any) -> Exchange:
        facts = {
            "authority": "denied.example:443",
            "host": Hostname("denied.example"),
            "verdict": refuse(Reason.NO_RULE),
            "response_code": 403,
            "bytes_sent": 300,
            "upstream": None,
            "resolved": (),
            "tls_mode": "",
        }
        return _request(**(facts | changes))

    return make
