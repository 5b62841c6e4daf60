"""The explicit HTTP proxy: requests with absolute URIs, and CONNECT."""

from __future__ import annotations

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment, Verdict

from .client import Client
from .heads import read_request, refuse_unread
from .http1 import RequestHead
from .http_relay import HttpRelay
from .refuse import refuse_http
from .stream_relay import Destination, Rest, describe, note_failure, relay_judged_later
from .target import NotUnderstood, ProxyTarget, read_connect
from .tunnel import JudgedTunnel
from .upstream import Failed, connect
from .upstream_tls import TlsContexts

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def serve_explicit_proxy(client: Client, contexts: TlsContexts) -> Rest | None:
    """Serves one connection until it ends or becomes a tunnel."""
    relay: HttpRelay | None = None
    try:
        while True:
            head = await read_request(client)
            if head is None:
                return None
            if isinstance(head, NotUnderstood):
                await refuse_unread(client, head)
                return None
            if head.method == "CONNECT":
                return await _connect(client, head, contexts)
            if relay is None:
                relay = HttpRelay(client, ProxyTarget(), contexts)
            if not await relay.serve(head):
                return None
    finally:
        if relay is not None:
            relay.close()


async def _connect(client: Client, head: RequestHead, contexts: TlsContexts) -> Rest | None:
    """CONNECT: a tunnel to a destination the rules allow at all; what it may carry is judged by its first bytes."""
    gate = client.gate
    asked = read_connect(head)
    if isinstance(asked, NotUnderstood):
        exchange = _begin(client, head)
        exchange.detail = asked.detail
        exchange.verdict = gate.refused(asked.reason, "connect")
        await _refuse(client, exchange, head)
        return None
    destination = Destination(*asked)
    request = destination.request(Spoken.UNKNOWN)
    verdict = gate.decide(request, "connect")
    # An address needs no resolver, so whether it may be dialled can be said now, in HTTP.
    barred = gate.judge_literal(request, verdict) if verdict.treatment is Treatment.AWAIT else None
    if verdict.treatment is Treatment.AWAIT and barred is None:
        client.writer.write(_ESTABLISHED)
        return await relay_judged_later(client, destination, contexts)
    exchange = _begin(client, head)
    describe(exchange, destination)
    if barred is not None:
        exchange.detail = barred.detail
        verdict = gate.refused(barred.reason, "connect", verdict.rule)
    exchange.verdict = verdict
    if not verdict.allowed:
        await _refuse(client, exchange, head, request)
        return None
    return await _byte_tunnel(client, request, verdict, exchange, head, contexts)


def _begin(client: Client, head: RequestHead) -> Exchange:
    """A new exchange, for what is said about the CONNECT itself."""
    exchange = client.begin()
    exchange.protocol, exchange.method, exchange.path = f"HTTP/1.{head.minor}", "CONNECT", head.target
    return exchange


async def _byte_tunnel(
    client: Client,
    request: Request,
    verdict: Verdict,
    exchange: Exchange,
    head: RequestHead,
    contexts: TlsContexts,
) -> Rest | None:
    opened = await connect(client.gate, contexts, request, verdict, exchange, "tcp")
    if isinstance(opened, Failed):
        note_failure(exchange, opened)
        await _refuse(client, exchange, head, request)
        return None
    exchange.protocol, exchange.response_code = "TCP", 200
    client.writer.write(_ESTABLISHED)
    return JudgedTunnel(client, opened, request, verdict, exchange).run


async def _refuse(client: Client, exchange: Exchange, head: RequestHead, request: Request | None = None) -> None:
    accept = b", ".join(head.values(b"accept")).decode("latin-1")
    try:
        await refuse_http(client, exchange, request, accept=accept)
    finally:
        client.gate.finish(exchange)
