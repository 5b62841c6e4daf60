"""A byte stream to one destination: what CONNECT, SOCKS5 and the transparent modes end in.

The destination was allowed already; what is done with the stream hangs on its first bytes, except under a `tcp` rule,
where nobody looks at them (and the destination may speak first). Whatever is neither TLS nor HTTP is refused: nothing
falls back to raw bytes.

What a connection ends in is returned instead of awaited (`Rest`): a tunnel may be idle for hours, and all that led to
it takes several times the memory of the tunnel itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from egress_gateway.gate.byte_names import find_byte_name
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address, Host, format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment

from .client import Client, abort
from .first_bytes import await_first_bytes, await_hello
from .handshake import pass_hello
from .heads import read_request, refuse_unread
from .http_relay import HttpRelay
from .refuse import refuse_tls
from .target import NotUnderstood, OriginalTarget, Target, TunnelTarget
from .tunnel import JudgedTunnel
from .upstream import Failed, connect
from .upstream_tls import TlsContexts

type Rest = Callable[[], Awaitable[None]]
"""What is still to be done on a connection, when all that led to it can be forgotten."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a stream is to go, before its first byte."""

    host: Host
    """The name or address asked for; the original address in transparent modes."""
    port: int
    original: Address | None = None
    """Transparent modes: the address that the client itself dialled."""

    def request(self, spoken: Spoken) -> Request:
        return Request(self.host, self.port, spoken, original=self.original)


def describe(exchange: Exchange, destination: Destination) -> None:
    """Puts the destination into an exchange."""
    exchange.host, exchange.port = destination.host, destination.port
    exchange.authority = format_authority(destination.host, destination.port)


async def relay_judged_later(client: Client, destination: Destination, contexts: TlsContexts) -> Rest | None:
    """Looks at the first bytes of the client and does what the rules say about them."""
    spoken = await await_first_bytes(client)
    if spoken is None:
        return None
    if spoken is Spoken.HTTP:
        await _relay_http(client, destination, contexts)
        return None
    rest: Rest | None = None
    exchange = client.begin()
    describe(exchange, destination)
    try:
        if isinstance(spoken, NotUnderstood):
            exchange.detail = spoken.detail
            exchange.verdict = client.gate.refused(spoken.reason, "unknown")
        elif spoken is Spoken.TLS:
            exchange.protocol = "TLS"
            rest = await _relay_tls(client, destination, contexts, exchange)
        else:
            rest = await _relay_unknown(client, destination, contexts, exchange, spoken)
    except OSError:
        exchange.failure = exchange.failure or Reason.CLIENT_CLOSED
    finally:
        if rest is None:
            client.gate.finish(exchange)
    return rest


async def _relay_http(client: Client, destination: Destination, contexts: TlsContexts) -> None:
    target: Target
    if destination.original is not None:
        target = OriginalTarget(destination.original, destination.port)
    else:
        target = TunnelTarget(destination.host, destination.port)
    relay = HttpRelay(client, target, contexts)
    try:
        while True:
            head = await read_request(client)
            if isinstance(head, NotUnderstood):
                await refuse_unread(client, head)
                return
            if head is None or not await relay.serve(head):
                return
    finally:
        relay.close()


async def _relay_tls(
    client: Client, destination: Destination, contexts: TlsContexts, exchange: Exchange
) -> Rest | None:
    gate = client.gate
    hello = await await_hello(client)
    if hello is None:
        exchange.failure = Reason.CLIENT_CLOSED
        return None
    if isinstance(hello, NotUnderstood):
        exchange.detail = hello.detail
        exchange.verdict = gate.refused(hello.reason, "tls")
        await refuse_tls(client, exchange)
        return None
    exchange.requested_server_name = hello.sni or ""
    exchange.ech = hello.ech
    gate.observer.hello_seen(hello.ech)
    if hello.sni is None:
        destination = await _named_by_address(client, destination)
        describe(exchange, destination)
    host = destination.host
    if destination.original is not None and hello.sni is not None:
        host = exchange.host = hello.sni
        exchange.authority = format_authority(host, destination.port)
    request = Request(host, destination.port, Spoken.TLS, sni=hello.sni, original=destination.original)
    verdict = gate.decide(request, "tls")
    ech_denied = hello.ech and gate.settings.ech == "deny"
    if verdict.allowed and ech_denied and verdict.treatment is not Treatment.BYTES:
        verdict = gate.refused(Reason.ECH_DENIED, "tls", verdict.rule)
    exchange.verdict = verdict
    if not verdict.allowed:
        exchange.hint = gate.explain(request, verdict).hint
        await refuse_tls(client, exchange)
        return None
    if verdict.treatment is Treatment.PASSTHROUGH:
        exchange.tls_mode = "passthrough"
    opened = await connect(gate, contexts, request, verdict, exchange, "tls")
    if isinstance(opened, Failed):
        note_failure(exchange, opened)
        await refuse_tls(client, exchange)
        return None
    if verdict.treatment is Treatment.PASSTHROUGH:
        problem = await pass_hello(client, opened, hello, exchange)
        if problem is not None:
            abort(opened.connection)
            exchange.detail = problem.detail
            exchange.verdict = gate.refused(problem.reason, "tls")
            await refuse_tls(client, exchange)
            return None
    return JudgedTunnel(client, opened, request, verdict, exchange).run


async def _relay_unknown(
    client: Client, destination: Destination, contexts: TlsContexts, exchange: Exchange, spoken: Spoken
) -> Rest | None:
    exchange.protocol = "HTTP/2" if spoken is Spoken.HTTP2 else "TCP"
    destination = await _named_by_address(client, destination)
    describe(exchange, destination)
    request = destination.request(spoken)
    verdict = client.gate.decide(request, "http" if spoken is Spoken.HTTP2 else "unknown")
    exchange.verdict = verdict
    if not verdict.allowed:
        exchange.hint = client.gate.explain(request, verdict).hint
        await client.linger()
        return None
    opened = await connect(client.gate, contexts, request, verdict, exchange, "tcp")
    if isinstance(opened, Failed):
        note_failure(exchange, opened)
        return None
    return JudgedTunnel(client, opened, request, verdict, exchange).run


async def _named_by_address(client: Client, destination: Destination) -> Destination:
    """Where the client names nobody: the destination by a name of the dialled address that a `tcp` rule allows."""
    if destination.original is None:
        return destination
    name = await find_byte_name(client.gate, destination.original, destination.port, client.peer[0])
    return destination if name is None else replace(destination, host=name)


def note_failure(exchange: Exchange, failed: Failed) -> None:
    """Writes into an exchange why there is no connection."""
    exchange.detail = failed.detail
    if not failed.refused:
        exchange.failure = failed.reason
