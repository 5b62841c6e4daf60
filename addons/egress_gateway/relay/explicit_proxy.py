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
from .stream_relay import Destination, describe, note_failure, relay_bytes, relay_judged_later
from .target import NotUnderstood, ProxyTarget, read_connect
from .upstream import Failed, connect
from .upstream_tls import TlsContexts

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


async def serve_explicit_proxy(client: Client, contexts: TlsContexts) -> None:
    """Serves one connection until it ends or becomes a tunnel."""
    relay = HttpRelay(client, ProxyTarget(), contexts)
    try:
        while True:
            head = await read_request(client)
            if head is None:
                return
            if isinstance(head, NotUnderstood):
                await refuse_unread(client, head)
                return
            if head.method == "CONNECT":
                await _connect(client, head, contexts)
                return
            if not await relay.serve(head):
                return
    finally:
        relay.close()


async def _connect(client: Client, head: RequestHead, contexts: TlsContexts) -> None:
    """CONNECT: a tunnel to a destination the rules allow at all; what it may carry is judged by its first bytes."""
    gate = client.gate
    exchange = client.begin()
    exchange.protocol, exchange.method, exchange.path = f"HTTP/1.{head.minor}", "CONNECT", head.target
    asked = read_connect(head)
    if isinstance(asked, NotUnderstood):
        exchange.detail = asked.detail
        exchange.verdict = gate.refused(asked.reason, "connect")
        await _refuse(client, exchange, head)
        return
    destination = Destination(*asked)
    describe(exchange, destination)
    request = destination.request(Spoken.UNKNOWN)
    verdict = gate.decide(request, "connect")
    if verdict.treatment is Treatment.AWAIT:
        # An address needs no resolver, so whether it may be dialled can be said now, in HTTP.
        barred = gate.judge_literal(request, verdict)
        if barred is None:
            client.writer.write(_ESTABLISHED)
            await relay_judged_later(client, destination, contexts)
            return
        exchange.detail = barred.detail
        verdict = gate.refused(barred.reason, "connect", verdict.rule)
    exchange.verdict = verdict
    if not verdict.allowed:
        await _refuse(client, exchange, head, request)
        return
    await _byte_tunnel(client, request, verdict, exchange, head, contexts)


async def _byte_tunnel(
    client: Client,
    request: Request,
    verdict: Verdict,
    exchange: Exchange,
    head: RequestHead,
    contexts: TlsContexts,
) -> None:
    opened = await connect(client.gate, contexts, request, verdict, exchange, "tcp")
    if isinstance(opened, Failed):
        note_failure(exchange, opened)
        await _refuse(client, exchange, head, request)
        return
    exchange.protocol, exchange.response_code = "TCP", 200
    client.writer.write(_ESTABLISHED)
    try:
        await relay_bytes(client, opened, request, verdict, exchange)
    finally:
        client.gate.finish(exchange)


async def _refuse(client: Client, exchange: Exchange, head: RequestHead, request: Request | None = None) -> None:
    accept = b", ".join(head.values(b"accept")).decode("latin-1")
    try:
        await refuse_http(client, exchange, request, accept=accept)
    finally:
        client.gate.finish(exchange)
