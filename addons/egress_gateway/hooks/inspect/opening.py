"""The way to a destination: found for a request, opened for a tunnel, whose bytes it moves as well.

For CONNECT, SOCKS5 and the transparent modes alike.
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address

from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import TCPLayer

from egress_gateway.gate.gatekeeper import Route
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay.stream_relay import Destination

from .client import ByteHostData, EgressByteHostHook, EgressFindHook, FindData, Grant, InspectedClient
from .ending import Gate
from .idle import Idle
from .pin import unjudged


def admit(client: InspectedClient, destination: Destination, exchange: Exchange) -> tuple[Request, Verdict]:
    """Whether a tunnel to `destination` may be opened at all, before a byte of it is seen."""
    request = destination.request(Spoken.UNKNOWN)
    verdict = client.gate.decide(request, "connect")
    exchange.verdict = verdict
    if verdict.treatment is Treatment.AWAIT:
        # An address needs no resolver, so whether it may be dialled can be said now.
        barred = client.gate.judge_literal(request, verdict)
        if barred is not None:
            exchange.detail = barred.detail
            exchange.verdict = verdict = client.gate.refused(barred.reason, "connect", verdict.rule)
    return request, verdict


def find_way(client: InspectedClient, grant: Grant, exchange: Exchange) -> CommandGenerator[bool]:
    """Finds the addresses that a request may be sent to; returns whether it did. The exchange knows why not."""
    client.dials_for(exchange)
    data = FindData(grant)
    yield EgressFindHook(data)
    found = data.found
    if isinstance(found, Route):
        grant.route, grant.found_at = found, time.monotonic()
        return True
    if found is None:
        client.refuse(exchange, Reason.INTERNAL_ERROR, "", "http")
    else:
        exchange.detail = found.detail
        if not found.refused:
            exchange.failure = found.reason
            client.gate.observer.upstream_failed(found.reason)
    return False


def open_way(
    context: Context, client: InspectedClient, request: Request, verdict: Verdict, exchange: Exchange, protocol: str
) -> CommandGenerator[bool]:
    """Connects `context.server` to what was allowed; returns whether it did. The exchange knows why not."""
    context.server = Server(address=unjudged(str(request.host), verdict.port))
    client.grant(request, verdict, exchange, protocol, tls=False)
    client.pace.stall(exchange.request_id)
    error = yield commands.OpenConnection(context.server)
    client.pace.stall(exchange.request_id, False)
    if error is None:
        client.gate.observer.tunnel_opened(exchange)
        return True
    if exchange.verdict.allowed and exchange.failure is None:
        exchange.failure, exchange.detail = Reason.CONNECT_FAILED, error
    return False


def byte_host(client: InspectedClient, destination: Destination, *, has_spoken: bool) -> CommandGenerator[Host | None]:
    """The host that a redirected connection is for, whatever is spoken; None where the client has to name one."""
    if destination.original is None:
        return None
    data = ByteHostData(destination.original, destination.port, client.peer[0], has_spoken)
    yield EgressByteHostHook(data)
    return data.host


class ByteTunnel(Gate):
    """Bytes both ways over a connection that is open, uninterpreted and not kept."""

    def __init__(self, context: Context, client: InspectedClient, exchange: Exchange) -> None:
        super().__init__(context, client)
        self._exchange = exchange
        # `ignore` is mitmproxy's word for a TCP layer that makes no flow, hence keeps no message.
        self._bytes = TCPLayer(context, ignore=True)
        self._on = self._count

    def _idle(self, event: Idle) -> CommandGenerator[None]:
        self._exchange.failure = self._exchange.failure or Reason.UPSTREAM_TIMEOUT
        seconds = self._client.gate.settings.limits.idle_timeout
        self._exchange.detail = self._exchange.detail or f"nothing moved for {seconds:g} s"
        yield from super()._idle(event)

    def _count(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            if self._is_from_client(event):
                self._exchange.bytes_received += len(event.data)
            else:
                self._exchange.bytes_sent += len(event.data)
        yield from self._bytes.handle_event(event)


def original_of(client: InspectedClient) -> IPv4Address | IPv6Address | None:
    """The address a transparent client dialled."""
    return client.original[0] if client.original else None
