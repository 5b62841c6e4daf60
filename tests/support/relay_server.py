"""A relay in this process, over real sockets, without mitmproxy around it: for tests of the relay's own behaviour."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from egress_gateway.dns.answer import Answer, ResolveError, ResolveFailure
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Limits, Settings, UpstreamTls
from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.hostname import parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import AddressRange, Destination, EgressRule, ExactName, Port, Protocol, Wildcard
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Verdict
from egress_gateway.relay.client import Client
from egress_gateway.relay.serve import serve
from egress_gateway.relay.stream import Input
from egress_gateway.relay.upstream_tls import TlsContexts


def rule(service: str, *ports: tuple[int, str], name: str = "", **fields: object) -> EgressRule:
    """A rule for one service as rule files write it: `rule("*.example.com", (443, "https"))`."""
    destination: Destination
    if service.startswith("*"):
        destination = Wildcard(service[1:])
    elif "/" in service:
        destination = AddressRange(ip_network(service))
    else:
        host = parse_host(service)
        destination = ExactName(host) if isinstance(host, str) else AddressRange.of(host)
    made = tuple(Port(number, Protocol(protocol)) for number, protocol in ports)
    return EgressRule("default", name or f"allow-{service}", (destination,), made, **fields)  # type: ignore[arg-type]


class Names:
    """A resolver that knows what it is told, and remembers what it was asked."""

    def __init__(self, names: Mapping[str, Iterable[str]]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []

    async def resolve(self, host: str) -> Answer:
        self.asked.append(host)
        if host not in self.names:
            raise ResolveError(ResolveFailure.NXDOMAIN, host)
        return Answer(tuple(ip_address(text) for text in self.names[host]), 0.0, host)


@dataclass
class Recorder(Observer):
    """Keeps every event."""

    exchanges: list[Exchange] = field(default_factory=list)
    decisions: list[Verdict] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    failures: list[Reason] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def decided(self, verdict: Verdict, protocol: str, seconds: float) -> None:
        self.decisions.append(verdict)

    def finished(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def mismatch(self, claim: str) -> None:
        self.mismatches.append(claim)

    def upstream_failed(self, reason: Reason) -> None:
        self.failures.append(reason)

    def internal_error(self, where: str) -> None:
        self.errors.append(where)


@dataclass
class RelayServer:
    gate: Gatekeeper
    seen: Recorder
    names: Names
    port: int

    async def raw(self, data: bytes, *, quiet: float = 5.0, half_close: bool = False) -> bytes:
        """Sends `data` and returns everything until the relay closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(quiet):
                return await reader.read()
        finally:
            writer.close()

    async def finished(self, count: int = 1) -> list[Exchange]:
        """The exchanges, once there are `count` of them."""
        async with asyncio.timeout(5):
            while len(self.seen.exchanges) < count:
                await asyncio.sleep(0.005)
        return self.seen.exchanges


@asynccontextmanager
async def relay_server(
    rules: Iterable[EgressRule],
    names: Mapping[str, Iterable[str]] | None = None,
    *,
    mode: str = "regular",
    limits: Limits | None = None,
    ca_file: str | None = None,
    original: tuple[str, int] | None = None,
    **settings: object,
) -> AsyncIterator[RelayServer]:
    """A relay on a free loopback port, with 127.0.0.0/8 treated as public unless `public_ranges` says otherwise."""
    settings.setdefault("public_ranges", (ip_network("127.0.0.0/8"),))
    made = Settings(limits=limits or Limits(), tls=UpstreamTls(ca_file=ca_file), **settings)  # type: ignore[arg-type]
    known, seen = Names(names or {}), Recorder()
    gate = Gatekeeper(known, seen, made)
    gate.use(RuleSet.build(rules))
    gate.open()
    contexts = TlsContexts(made.tls)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        peer = writer.get_extra_info("peername")[:2]
        where = (ip_address(original[0]), original[1]) if original else None
        await serve(Client(gate, Input(reader), writer, peer, where), mode, contexts)
        tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    gate.own_ports = frozenset({port})
    try:
        yield RelayServer(gate, seen, known, port)
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
