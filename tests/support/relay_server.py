"""A relay in this process, over real sockets, without mitmproxy around it: for tests of the relay's own behaviour.

A test reads as a conversation: `relay_server` stands between a `Talk`, which the test drives, and an `origin`, whose
script is a coroutine that is given each connection as a `Peer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from egress_gateway.dns.answer import Answer, Bindings, ResolveError, ResolveFailure
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.gate.settings import Limits, Settings, UpstreamTls
from egress_gateway.policy.events import Exchange, Observer
from egress_gateway.policy.hostname import parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.rule import AddressRange, Destination, EgressRule, ExactName, Port, Protocol, Wildcard
from egress_gateway.policy.ruleset import RuleSet
from egress_gateway.policy.verdict import Verdict
from egress_gateway.relay.client import Client
from egress_gateway.relay.connection import Connection
from egress_gateway.relay.serve import serve
from egress_gateway.relay.stream import Input
from egress_gateway.relay.upstream_tls import TlsContexts
from support.waiting import PATIENCE, until


def rule(service: str, *ports: tuple[int, str], name: str = "", **fields: Any) -> EgressRule:
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
    return EgressRule("default", name or f"allow-{service}", (destination,), made, **fields)


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

    async def bindings(self, host: str, kind: str) -> Bindings:
        raise NotImplementedError


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

    async def raw(self, data: bytes, *, quiet: float = PATIENCE, half_close: bool = False) -> bytes:
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
        await until(lambda: len(self.seen.exchanges) >= count, f"{count} exchanges that are over")
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
    **settings: Any,
) -> AsyncIterator[RelayServer]:
    """A relay on a free loopback port, with 127.0.0.0/8 treated as public unless `public_ranges` says otherwise."""
    settings.setdefault("public_ranges", (ip_network("127.0.0.0/8"),))
    made = Settings(limits=limits or Limits(), tls=UpstreamTls(ca_file=ca_file), **settings)
    known, seen = Names(names or {}), Recorder()
    gate = Gatekeeper(known, seen, made)
    gate.use(RuleSet.build(rules))
    gate.open()
    contexts = TlsContexts(made.tls)
    tasks: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        while True:
            sock, peer = await asyncio.get_running_loop().sock_accept(listener)
            connection = Connection(sock)
            where = (ip_address(original[0]), original[1]) if original else None
            client = Client(gate, Input(connection), connection, peer[:2], where)
            tasks.add(task := asyncio.create_task(serve(client, mode, contexts)))
            task.add_done_callback(tasks.discard)

    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    gate.own_ports = frozenset({port})
    accepting = asyncio.create_task(accept())
    try:
        yield RelayServer(gate, seen, known, port)
    finally:
        accepting.cancel()
        await asyncio.gather(accepting, return_exceptions=True)
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- both ends of a conversation ---


class Stream:
    """One end of a connection. Whatever is read is kept in `received`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received = bytearray()
        self._taken = 0

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def bytewise(self, data: bytes) -> None:
        """Sends one byte at a time, each in a packet of its own."""
        for byte in data:
            await self.send(bytes([byte]))
            await asyncio.sleep(0)

    async def more(self) -> bool:
        data = await self.reader.read(65_536)
        self.received += data
        return bool(data)

    async def until(self, mark: bytes, *, quiet: float = PATIENCE) -> bytes:
        """What was not taken yet, up to and with `mark`. Raises EOFError, or TimeoutError after `quiet` seconds."""
        async with asyncio.timeout(quiet):
            while (found := self.received.find(mark, self._taken)) < 0:
                if not await self.more():
                    raise EOFError(bytes(self.received[self._taken :]))
        return self._take(found + len(mark))

    async def exactly(self, count: int, *, quiet: float = PATIENCE) -> bytes:
        async with asyncio.timeout(quiet):
            while len(self.received) < self._taken + count:
                if not await self.more():
                    raise EOFError(bytes(self.received[self._taken :]))
        return self._take(self._taken + count)

    async def rest(self, *, quiet: float = PATIENCE) -> bytes:
        """All that still comes until the other side closes."""
        async with asyncio.timeout(quiet):
            while await self.more():
                pass
        return self._take(len(self.received))

    async def rest_or_reset(self, *, quiet: float = PATIENCE) -> bytes:
        """As `rest`, from another side that may close while something is still sent to it.

        The kernel answers what arrives after a close with RST, so how the end looks depends on who was first.
        """
        with contextlib.suppress(ConnectionResetError):
            return await self.rest(quiet=quiet)
        return self._take(len(self.received))

    async def silent(self, seconds: float = 0.05) -> bool:
        """Whether nothing comes for so long, the end of the stream included."""
        try:
            async with asyncio.timeout(seconds):
                await self.more()
        except TimeoutError:
            return len(self.received) == self._taken
        return False

    def _take(self, end: int) -> bytes:
        data = bytes(self.received[self._taken : end])
        self._taken = end
        return data

    def half_close(self) -> None:
        self.writer.write_eof()

    def pause(self) -> None:
        """Takes nothing from the kernel until `resume`."""
        self._transport.pause_reading()

    def resume(self) -> None:
        self._transport.resume_reading()

    @property
    def _transport(self) -> asyncio.Transport:
        transport = self.writer.transport
        assert isinstance(transport, asyncio.Transport)
        return transport

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Ends the connection with RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass(frozen=True)
class Reply:
    """A response as a client sees it."""

    status: int
    head: bytes
    body: bytes
    framing: str
    """`length`, `chunked`, `close` or `none`."""

    def values(self, name: str) -> list[str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = [line.partition(":") for line in lines if line]
        return [value.strip() for field_name, _, value in pairs if field_name.lower() == name.lower()]

    @property
    def reason(self) -> str:
        """The reason in a refusal of the gateway's own; empty in an answer of an origin."""
        return "".join(self.values("x-egress-reason"))


class Talk(Stream):
    """A client's end."""

    async def reply(self, method: str = "GET", *, quiet: float = PATIENCE) -> Reply:
        """The next response, interim ones included. Raises EOFError where the connection ends within it."""
        head = await self.until(b"\r\n\r\n", quiet=quiet)
        bare = Reply(int(head.split(b" ", 2)[1]), head, b"", "none")
        if method == "HEAD" or bare.status < 200 or bare.status in (204, 304):
            return bare
        if bare.values("transfer-encoding"):
            return Reply(bare.status, head, await self._chunks(quiet), "chunked")
        if lengths := bare.values("content-length"):
            return Reply(bare.status, head, await self.exactly(int(lengths[0]), quiet=quiet), "length")
        return Reply(bare.status, head, await self.rest(quiet=quiet), "close")

    async def _chunks(self, quiet: float) -> bytes:
        body = b""
        while size := int(await self.until(b"\r\n", quiet=quiet), 16):
            body += await self.exactly(size, quiet=quiet)
            assert await self.exactly(2, quiet=quiet) == b"\r\n"
        while await self.until(b"\r\n", quiet=quiet) != b"\r\n":
            pass
        return body

    async def ask(self, data: bytes, method: str = "GET") -> Reply:
        await self.send(data)
        return await self.reply(method)

    async def tunnel(self, authority: str) -> Talk:
        """Itself, after a CONNECT that was granted."""
        await self.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        granted = await self.until(b"\r\n\r\n")
        assert granted.startswith(b"HTTP/1.1 200 "), granted
        return self

    async def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        await self.writer.start_tls(context, server_hostname=name)


@asynccontextmanager
async def talk(server: RelayServer) -> AsyncIterator[Talk]:
    """A client connection to the relay."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


class Peer(Stream):
    """An origin's end of one connection."""

    async def head(self) -> bytes:
        return await self.until(b"\r\n\r\n")

    async def answer(self, body: bytes = b"", *fields: str, status: str = "200 OK") -> None:
        """A response framed by its length."""
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields]
        await self.send("\r\n".join([*lines, "\r\n"]).encode() + body)


@dataclass
class Origin:
    port: int = 0
    peers: list[Peer] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    @property
    def received(self) -> bytes:
        """What has come and was read, over all connections."""
        return b"".join(bytes(peer.received) for peer in self.peers)


Script = Callable[[Peer], Awaitable[None]]


@asynccontextmanager
async def origin(
    script: Script, *, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Origin]:
    """A server that runs `script` for each connection and closes it afterwards. What the script raises fails the test,
    but for the end of the connection."""
    made, tasks = Origin(), set[asyncio.Task[None]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        made.peers.append(peer := Peer(reader, writer))
        try:
            await script(peer)
        except (OSError, EOFError):
            pass
        except Exception as error:
            made.errors.append(error)
        finally:
            writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(handle, address, port, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in made.peers:
            peer.writer.transport.abort()  # under TLS it would wait for the other side's farewell
        await asyncio.sleep(0)
    if made.errors:
        raise made.errors[0]


@asynccontextmanager
async def conversation(
    script: Script, protocol: str = "http", *, tls: ssl.SSLContext | None = None, **server: Any
) -> AsyncIterator[tuple[Talk, RelayServer, Origin]]:
    """A client, a relay, and an origin that is `a.example` and may be reached as `protocol`, and nothing else.

    Code of the relay's own that raised fails the test.
    """
    async with (
        origin(script, tls=tls) as there,
        relay_server([rule("a.example", (there.port, protocol))], {"a.example": ["127.0.0.1"]}, **server) as relay,
        talk(relay) as client,
    ):
        yield client, relay, there
    assert relay.seen.errors == []


def request(
    there: Origin, path: str = "/", *fields: str, method: str = "GET", version: str = "1.1", host: str = "a.example"
) -> bytes:
    """The head of a request to a proxy."""
    where = f"{host}:{there.port}"
    lines = [f"{method} http://{where}{path} HTTP/{version}", f"Host: {where}", *fields, "\r\n"]
    return "\r\n".join(lines).encode()


async def answers(peer: Peer) -> None:
    """A script: every request, which has no body, is answered with its own first line."""
    while True:
        await peer.answer((await peer.head()).partition(b"\r\n")[0])


async def echo(peer: Peer) -> None:
    """A script: every byte comes back; half-closes when the other side has."""
    while await peer.more():
        await peer.send(peer._take(len(peer.received)))
    peer.half_close()
