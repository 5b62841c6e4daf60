"""CONNECT: other addons see it first (a proxy password is theirs to ask for), then it is judged, then answered.

mitmproxy's HTTP layer would put its own stream around the tunnel, which closes both directions when one ends; so the
gate answers itself, with the same hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._hooks import HttpConnectedHook, HttpConnectErrorHook, HttpConnectHook

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment
from egress_gateway.relay.http1 import RequestHead
from egress_gateway.relay.stream_relay import Destination, describe
from egress_gateway.relay.target import NotUnderstood, read_connect

from .byte_tunnel import ByteTunnel
from .client import InspectedClient
from .flows import annotate, make_response, refusal
from .opening import admit, open_way

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A tunnel that has been announced to the client, or an answer that has not."""

    tunnel: layer.Layer | None = None
    answer: bytes = b""
    keep_alive: bool = False


MakeTunnel = Callable[[Context, InspectedClient, Destination], layer.Layer]
"""Makes the layer for an accepted tunnel that is judged by what it carries."""


def connect(
    context: Context, client: InspectedClient, head: RequestHead, make_tunnel: MakeTunnel
) -> CommandGenerator[Outcome]:
    """Judges a CONNECT request, and announces the tunnel to the client where there is one."""
    exchange = client.begin()
    exchange.protocol, exchange.method, exchange.path = f"HTTP/1.{head.minor}", "CONNECT", head.target
    asked = read_connect(head)
    if isinstance(asked, NotUnderstood):
        client.refuse(exchange, asked.reason, asked.detail, "connect")
        answer = _refusal(client, exchange, None, head)
        client.finish(exchange)
        return Outcome(answer=http1.assemble_response(answer))
    destination = Destination(*asked)
    describe(exchange, destination)
    shown = _flow(context, head, destination)
    yield HttpConnectHook(shown)
    if shown.error is not None:  # killed
        client.refuse(exchange, Reason.CLIENT_CLOSED, shown.error.msg, "connect")
        client.finish(exchange)
        return Outcome()
    if shown.response is not None and not 200 <= shown.response.status_code < 300:
        return (yield from _answered_by_other(client, exchange, shown))
    request, verdict = admit(client, destination, exchange)
    tunnel: layer.Layer
    if verdict.treatment is Treatment.AWAIT:
        # The tunnel itself is no exchange; what it turns out to carry is.
        client.forget(exchange)
        tunnel = make_tunnel(context.fork(), client, destination)
    else:
        fork = context.fork()
        opened = verdict.allowed and (yield from open_way(fork, client, request, verdict, exchange, "tcp"))
        if not opened:
            shown.response = _refusal(client, exchange, request, head)
            annotate(shown, exchange)
            yield HttpConnectErrorHook(shown)
            client.finish(exchange)
            return Outcome(answer=http1.assemble_response(shown.response))
        exchange.protocol, exchange.response_code = "TCP", 200
        tunnel = ByteTunnel(fork, client, exchange)
    shown.response = make_response(200, [], b"")
    yield HttpConnectedHook(shown)
    yield commands.SendData(context.client, _ESTABLISHED)
    return Outcome(tunnel=tunnel)


def _flow(context: Context, head: RequestHead, destination: Destination) -> http.HTTPFlow:
    """The CONNECT request as other addons know it."""
    shown = http.HTTPFlow(context.client, Server(address=(str(destination.host), destination.port)))
    authority = format_authority(destination.host, destination.port)
    shown.request = http.Request(
        host=str(destination.host),
        port=destination.port,
        method=b"CONNECT",
        scheme=b"",
        authority=authority.encode("ascii"),
        path=b"",
        http_version=f"HTTP/1.{head.minor}".encode("ascii"),
        headers=http.Headers(head.headers),
        content=b"",
        trailers=None,
        timestamp_start=time.time(),
        timestamp_end=time.time(),
    )
    shown.live = True
    return shown


def _refusal(client: InspectedClient, exchange: Exchange, request: Request | None, head: RequestHead) -> http.Response:
    accept = b", ".join(head.values(b"accept")).decode("latin-1")
    return refusal(client.gate, exchange, request, accept, keep_alive=False)


def _answered_by_other(client: InspectedClient, exchange: Exchange, shown: http.HTTPFlow) -> CommandGenerator[Outcome]:
    """Another addon has answered, e.g. with 407: its answer goes out as it is, and nothing else does.

    Only that it is the last on its connection is said where it is.
    """
    assert shown.response is not None
    if shown.response.status_code == 407:
        exchange.verdict = client.gate.refused(Reason.PROXY_AUTHENTICATION_REQUIRED, "connect")
    exchange.response_code = shown.response.status_code
    if client.gate.draining:
        shown.response.headers["connection"] = "close"
    annotate(shown, exchange)
    yield HttpConnectErrorHook(shown)
    client.finish(exchange)
    keep_alive = not http1.connection_close(shown.request.http_version, shown.request.headers) and not (
        http1.connection_close(shown.response.http_version, shown.response.headers)
    )
    return Outcome(answer=http1.assemble_response(shown.response), keep_alive=keep_alive)
