"""A name server in this process, asked without a socket, whose resolver asks the real `dns`.

asking = ask(rule("a.example", (80, "http")))
reply = await asking("a.example", "AAAA")
assert shown(reply) == ["a.example. 60 IN AAAA 2001:db8::1"]

Its time stands still but for what a test adds to `asking.clock.now`, and it has the patience for a name server that is
held up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

import dns.message
import dns.rcode
import pytest
import pytest_asyncio

from egress_gateway.dns import lookup
from egress_gateway.dns.resolver import Resolver, ResolverSettings
from egress_gateway.dns.settings import parse_servers
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Limits, NameServerSettings, Settings
from egress_gateway.nameserver import questions
from egress_gateway.nameserver.questions import NameServer
from egress_gateway.policy.hostname import Address, Hostname
from egress_gateway.policy.rule import EgressRule
from egress_gateway.policy.ruleset import RuleSet
from support.dns_server import DnsServer
from support.relay_server import Recorder

CLIENT = "192.0.2.7"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Learned:
    """The name table's place, for what is learned."""

    told: list[tuple[str, list[str], float, str]] = field(default_factory=list)

    def learn(self, name: Hostname, addresses: Iterable[Address], *, ttl: float, client: str) -> None:
        self.told.append((name, [str(address) for address in addresses], ttl, client))


@dataclass
class Asking:
    server: NameServer
    gate: Gatekeeper
    seen: Recorder
    learned: Learned
    clock: Clock

    async def __call__(
        self, name: str, kind: str = "A", *, client: str = CLIENT, udp: bool = True, **more: Any
    ) -> dns.message.Message:
        """The reply to one question; `more` is what `dns.message.make_query` takes."""
        query = dns.message.make_query(name, kind, **({"use_edns": 0} | more))
        return await self.send(query, client=client, udp=udp)

    async def send(self, query: dns.message.Message, *, client: str = CLIENT, udp: bool = True) -> dns.message.Message:
        data = await self.server.answer(query.to_wire(), (client, 5353), udp=udp)
        assert data is not None, "there is no answer"
        reply = dns.message.from_wire(data)
        assert query.is_response(reply), reply
        return reply

    @property
    def reasons(self) -> list[str]:
        """Of all decisions so far."""
        return [verdict.reason.value for verdict in self.seen.decisions]


type Ask = Callable[..., Asking]


@pytest_asyncio.fixture
async def ask(dns: DnsServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ask]:
    """Makes a name server with these rules; `limits` and the fields of `NameServerSettings` may be given."""
    # In the network that tests run in, every address is this machine's.
    monkeypatch.setattr(questions, "is_own", lambda address: address.is_loopback)
    # Or what is late is given up, and an answer without it kept for a shorter time.
    monkeypatch.setattr(lookup, "RESOLUTION_DELAY", 10.0)
    resolvers: list[Resolver] = []

    def make(*rules: EgressRule, limits: Limits | None = None, timeout: float = 10.0, **name_server: Any) -> Asking:
        settings = Settings(
            limits=limits or Limits(),
            public_ranges=(ip_network("203.0.113.0/24"), ip_network("2001:db8::/32")),
            name_server=NameServerSettings(**name_server),
        )
        clock = Clock()
        resolving = ResolverSettings(servers=parse_servers(dns.endpoint), timeout=timeout, total_timeout=30.0)
        resolver = Resolver(resolving, clock=clock)
        resolvers.append(resolver)
        seen, learned = Recorder(), Learned()
        gate = Gatekeeper(resolver, seen, settings)
        monkeypatch.setattr(gate, "names", learned)
        gate.use(RuleSet.build(rules))
        gate.open()
        return Asking(NameServer(gate, clock), gate, seen, learned, clock)

    yield make
    for resolver in resolvers:
        await resolver.close()


def shown(reply: dns.message.Message) -> list[str]:
    """The records of the answer, one a line."""
    return [line for rrset in reply.answer for line in rrset.to_text().splitlines()]


def said(reply: dns.message.Message) -> str:
    """The code, and the extended error where there is one: `REFUSED Blocked no_rule`."""
    why = [f"{option.code.name} {option.text}" for option in reply.options if hasattr(option, "text")]
    return " ".join([dns.rcode.to_text(reply.rcode()), *why])
