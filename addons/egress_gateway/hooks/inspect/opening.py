"""The way to a destination: found for a request, opened for a tunnel.

For CONNECT, SOCKS5 and the transparent modes alike.
"""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address

from mitmproxy.connection import Server
from mitmproxy.proxy import commands
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator

from egress_gateway.gate.gatekeeper import Gatekeeper, NoRoute, Route
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay.stream_relay import Destination

from .client import ByteHostData, EgressByteHostHook, EgressFindHook, FindData, Grant, InspectedClient
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
        note_no_route(client.gate, exchange, found)
    return False


def note_no_route(gate: Gatekeeper, exchange: Exchange, no_route: NoRoute) -> None:
    """What it means for an exchange that there is no address for it. A refusal has become its verdict already."""
    exchange.detail = no_route.detail
    if not no_route.refused:
        exchange.failure = no_route.reason
        gate.observer.upstream_failed(no_route.reason)


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


def original_of(client: InspectedClient) -> IPv4Address | IPv6Address | None:
    """The address a transparent client dialled."""
    return client.original[0] if client.original else None
