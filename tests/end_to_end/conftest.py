"""One everyday world for real clients: two names under one wildcard, one plain host, one host no rule allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import Gateway
from support.origin import HttpOrigin, Origins

SECURE, PLAIN, DENIED = "203.0.113.10", "203.0.113.20", "203.0.113.66"

RULES = """
kind: EgressRule
metadata: {name: googleapis}
spec:
  destination: {service: "*.googleapis.com"}
  ports: [{port: 443, protocol: https}]
---
kind: EgressRule
metadata: {name: plain}
spec:
  destination: {service: plain.example}
  ports: [{port: 80, protocol: http}]
"""


@pytest.fixture(scope="session")
def cold() -> bool:
    """These tests are about what users run."""
    return True


@dataclass
class World:
    secure: HttpOrigin
    plain: HttpOrigin
    denied: HttpOrigin
    ca: SessionCa
    _start: Callable[..., Gateway]

    def gateway(self, **more: Any) -> Gateway:
        """The module's gateway with the everyday rules."""
        return self._start(RULES, **more)


@pytest.fixture(scope="module")
def world(
    module_dns: DnsServer, module_origin: Origins, ca: SessionCa, shared_gateway: Callable[..., Gateway]
) -> World:
    module_dns.set("www.googleapis.com", [SECURE])
    module_dns.set("plain.example", [PLAIN])
    module_dns.set("denied.example", [DENIED])
    return World(
        secure=module_origin.https(SECURE, "www.googleapis.com"),
        plain=module_origin.http(PLAIN),
        denied=module_origin.http(DENIED),
        ca=ca,
        _start=shared_gateway,
    )
