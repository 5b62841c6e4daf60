"""The hooks of the inspect data path. At the end of mitmproxy's chain, each of them refuses where it fails.

- A client gets our layers in place of mitmproxy's before it has said a word. `next_layer` is therefore never asked on a
  connection that was let in; where it is asked, somebody has kept us from letting it in, and the answer is to close.
- `server_connect` is the choke point: what nobody was granted is judged here, resolved once, and pinned.
- Replayed requests have no client connection and hence no gate: their hooks are judged here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, cast

from mitmproxy import connection, ctx, http, tls
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from egress_gateway.gate.byte_names import find_byte_host, find_byte_name
from egress_gateway.gate.gatekeeper import Gatekeeper, NoRoute, Route
from egress_gateway.gate.live import LiveConnection
from egress_gateway.hooks.fail_closed import refusing
from egress_gateway.policy.destination import plain
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address, MalformedHost, format_authority, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay.http1 import Framing
from egress_gateway.relay.stream import Reader
from egress_gateway.relay.stream_relay import Destination
from egress_gateway.relay.target import NotUnderstood

from .client import ByteHostData, FindData, Grant, InspectedClient, Where
from .flows import annotate, clean_response, make_response, note_request, refusal, send_onward
from .http_gate import HttpGate
from .pace import PacedReader
from .pin import PinnedAddress, dial_pins, pinned
from .requests import PROXY, decide_request, facts_of_changed, over_tls, place
from .socks_gate import SocksGate
from .stream_gate import StreamGate
from .transparent_gate import TransparentGate

logger = logging.getLogger(__name__)

REFUSED = "refused by the egress gateway"
CHANGED_DEFAULTS: dict[str, Any] = {
    # The app that hands out mitmproxy's certificate would answer without a verdict.
    "onboarding": False,
    # What is larger passes while it comes, instead of being kept.
    "stream_large_bodies": "1m",
}
"""Defaults of mitmproxy that do not suit a gateway; what the operator has set stays."""


@dataclass(slots=True)
class _Connection:
    """A connection to a destination, from the moment it may be dialled."""

    grant: Grant
    verdict: Verdict
    pin: PinnedAddress
    client: InspectedClient | None
    """None for a replayed request."""
    live: LiveConnection | None = None


@dataclass(slots=True)
class _Replay:
    exchange: Exchange
    placed: Any


class _Closed(layer.Layer):
    """Closes."""

    def _handle_event(self, _: events.Event) -> layer.CommandGenerator[None]:
        yield commands.CloseConnection(self.context.client)


def _close_next(_: Any, next_layer: layer.NextLayer) -> None:
    next_layer.layer = _Closed(next_layer.context)


def _refuse_server(_: Any, data: ServerConnectionHookData) -> None:
    data.server.error = REFUSED


def _refuse_tls(_: Any, data: tls.TlsData) -> None:
    # Without it mitmproxy closes the connection; whatever is in it instead would be used.
    data.ssl_conn = None


def _refuse_flow(_: Any, flow: http.HTTPFlow) -> None:
    flow.request.stream = False
    flow.response = make_response(503, [(b"content-length", b"0"), (b"connection", b"close")], b"")


def _end_server(hooks: Any, data: ServerConnectionHookData) -> None:
    hooks.abort(data)


def _nothing(_: Any, __: Any) -> None:
    """The hook lets nothing through, so there is nothing to take back."""


class InspectHooks:
    """`decrypts` says whether new connections have their TLS decrypted."""

    def __init__(self, gate: Gatekeeper) -> None:
        self.gate = gate
        self.decrypts = False
        self._clients: dict[str, InspectedClient] = {}
        self._connections: dict[str, _Connection] = {}
        self._replays: dict[str, _Replay] = {}

    def load(self, _: Any) -> None:
        ours = {
            name: value
            for name, value in CHANGED_DEFAULTS.items()
            if name in ctx.options and not ctx.options.has_changed(name)
        }
        ctx.options.update(**ours)

    # --- clients ---

    def take_over(self, handler: ConnectionHandler, original: tuple[Address, int] | None) -> None:
        """Puts our layers in the place of mitmproxy's. Call it before the handler has sent Start to its layer."""
        dial_pins(asyncio.get_running_loop())
        inspected = InspectedClient(self.gate, handler, original, decrypts=self.decrypts)
        io = handler.transports[handler.client]
        io.reader = PacedReader(cast(Reader, io.reader), inspected.pace)  # type: ignore[assignment]
        context = handler.layer.context
        context.layers.clear()
        handler.layer = self._top(context, inspected)
        self._clients[handler.client.id] = inspected
        self.gate.observer.connection_opened(handler.client.proxy_mode.type_name)

    def end_idle(self) -> int:
        """Ends the clients for whom nothing is going on; returns how many others there are."""
        busy = 0
        for client in list(self._clients.values()):
            if client.is_idle:
                client.end()
            else:
                busy += 1
        return busy

    def _top(self, context: Context, client: InspectedClient) -> layer.Layer:
        mode = context.client.proxy_mode.type_name
        if client.original is not None:
            address, port = client.original
            return TransparentGate(context, client, Destination(address, port, original=address))
        if mode == "regular":
            return HttpGate(context, client, PROXY, StreamGate)
        if mode == "socks5":
            with_password = "proxyauth" in context.options and bool(context.options.proxyauth)
            return SocksGate(context, client, with_password=with_password)
        return _Closed(context)

    @refusing(_nothing)
    def client_disconnected(self, client: connection.Client) -> None:
        inspected = self._clients.pop(client.id, None)
        if inspected is not None:
            inspected.close()
            self.gate.observer.connection_closed(client.proxy_mode.type_name)

    @refusing(_close_next)
    def next_layer(self, next_layer: layer.NextLayer) -> None:
        logger.warning("egress: a connection that was not let in is closed.")
        _close_next(self, next_layer)

    # --- connections to destinations ---

    @refusing(_nothing)
    async def egress_find(self, data: FindData) -> None:
        """Finds the addresses of a request before its connection is asked for, so that it can be refused as one."""
        grant = data.grant
        verdict = self.gate.decide(grant.request, grant.protocol)
        if (verdict.treatment, verdict.port) == (grant.treatment, grant.port):
            data.found = await self.gate.find_addresses(grant.request, verdict, grant.exchange, grant.protocol)

    @refusing(_nothing)
    async def egress_byte_host(self, data: ByteHostData) -> None:
        """Finds the host of a connection that need not name one itself."""
        find = find_byte_name if data.has_spoken else find_byte_host
        data.host = await find(self.gate, data.address, data.port, data.client)

    @refusing(_refuse_server)
    async def server_connect(self, data: ServerConnectionHookData) -> None:
        server = data.server
        if server.address is None or server.transport_protocol != "tcp" or server.via is not None:
            server.error = REFUSED
            return
        dial_pins(asyncio.get_running_loop())
        where: Where = (server.address[0], server.address[1], server.tls)
        client = self._clients.get(data.client.id)
        grant = (client and client.granted(where)) or self._unasked(data.client, where)
        exchange = grant.exchange
        verdict = self.gate.decide(grant.request, grant.protocol)
        if verdict.allowed and (verdict.treatment, verdict.port) != (grant.treatment, grant.port):
            verdict = self.gate.refused(Reason.PROTOCOL_NOT_ALLOWED, grant.protocol)
        if not verdict.allowed:
            exchange.verdict = verdict
            self._refuse(server, client, where, exchange)
            return
        if client is not None:
            client.dials_for(exchange)
        found: Route | NoRoute | None = grant.take_route()
        if found is None:
            found = await self.gate.find_addresses(grant.request, verdict, exchange, grant.protocol)
        if isinstance(found, NoRoute):
            exchange.detail = found.detail
            if not found.refused:
                exchange.failure = found.reason
                self.gate.observer.upstream_failed(found.reason)
            self._refuse(server, client, where, exchange)
            return
        _offer_alpn(data, grant)
        settings = self.gate.settings
        pin = pinned(where[0], where[1], found, settings.limits.connect_timeout, settings.local_address)
        server.address = pin
        self._connections[server.id] = _Connection(grant, verdict, pin, client)

    def _refuse(
        self, server: connection.Server, client: InspectedClient | None, where: Where, exchange: Exchange
    ) -> None:
        server.error = f"{exchange.reason}: {exchange.detail or 'refused by the egress gateway'}"
        if client is not None:
            client.broke(where, exchange)

    def _unasked(self, client: connection.Client, where: Where) -> Grant:
        """What nobody was granted is judged by its address alone, as a plain request."""
        host, port, is_tls = where
        exchange = self.gate.begin(client.peername[:2])
        try:
            request = Request(parse_host(host), port, Spoken.HTTP)
        except MalformedHost:
            raise ValueError("a connection to something that is no host") from None
        exchange.host, exchange.port = request.host, port
        exchange.authority = format_authority(request.host, port)
        verdict = self.gate.peek(request)
        treatment = Treatment.ORIGINATE if is_tls else Treatment.FORWARD
        return Grant(request, treatment, verdict.port, exchange, "http")

    @refusing(_nothing)
    def server_connect_error(self, data: ServerConnectionHookData) -> None:
        made = self._connections.pop(data.server.id, None)
        if made is None:
            return
        exchange = made.grant.exchange
        exchange.failure = Reason.CONNECT_TIMEOUT if made.pin.host.timed_out else Reason.CONNECT_FAILED
        exchange.detail = data.server.error or ""
        self.gate.observer.upstream_failed(exchange.failure)
        if made.client is not None:
            made.client.broke((made.pin[0], made.pin[1], data.server.tls), exchange)

    @refusing(_end_server)
    def server_connected(self, data: ServerConnectionHookData) -> None:
        server = data.server
        made = self._connections[server.id]
        assert server.peername is not None
        address = plain(ip_address(server.peername[0]))
        if address not in made.pin.host.addresses:
            raise RuntimeError(f"connected to {address}, which was not judged")
        server.address = made.pin.plain
        made.grant.exchange.upstream = (address, server.peername[1])
        self.gate.observer.connected(time.time() - (server.timestamp_start or time.time()))
        client = made.client
        if client is None:
            return
        client.works((made.pin[0], made.pin[1], server.tls))

        def end(verdict: Verdict) -> None:
            client.end_upstream(server, made.grant, verdict)

        made.live = LiveConnection(made.grant.request, made.grant.treatment, address, made.verdict.port, end)
        self.gate.enter(made.live, made.verdict)

    @refusing(_nothing)
    def server_disconnected(self, data: ServerConnectionHookData) -> None:
        made = self._connections.pop(data.server.id, None)
        if made is not None and made.live is not None:
            self.gate.live.discard(made.live)

    def abort(self, data: ServerConnectionHookData) -> None:
        """Ends a connection to a destination at once."""
        client = self._clients.get(data.client.id)
        if client is not None:
            client.abort(data.server)

    # --- TLS ---

    @refusing(_nothing)
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        data.establish_server_tls_first = True

    @refusing(_nothing)
    def tls_established_client(self, data: tls.TlsData) -> None:
        client = self._clients.get(data.context.client.id)
        if client is not None and client.decrypting is not None:
            # From here on each request is an exchange of its own.
            client.forget(client.decrypting)
            client.decrypting = None

    @refusing(_nothing)
    def tls_failed_client(self, data: tls.TlsData) -> None:
        client = self._clients.get(data.context.client.id)
        if client is not None and client.decrypting is not None:
            exchange, client.decrypting = client.decrypting, None
            exchange.failure = exchange.failure or Reason.CLIENT_CLOSED
            exchange.detail = exchange.detail or f"TLS with the client failed: {data.conn.error}"
            client.finish(exchange)

    @refusing(_refuse_tls)
    def tls_start_server(self, data: tls.TlsData) -> None:
        made = self._connections[data.conn.id]
        if data.conn.sni != str(made.grant.request.host):
            raise RuntimeError("TLS to a destination would be verified for another name")
        if made.client is not None:
            asyncio.get_running_loop().call_later(
                self.gate.settings.limits.connect_timeout, self._tls_late, made, data.conn
            )

    def _tls_late(self, made: _Connection, server: connection.Connection) -> None:
        if made.client is not None and not server.tls_established and server.id in self._connections:
            self._tls_failed(made, "the TLS handshake took too long")
            made.client.abort(server)

    @refusing(_nothing)
    def tls_established_server(self, data: tls.TlsData) -> None:
        started = data.conn.timestamp_tls_setup or time.time()
        begun = getattr(data.conn, "timestamp_tcp_setup", None) or started
        self.gate.observer.secured(max(0.0, started - begun))
        made = self._connections.get(data.conn.id)
        if data.context.client.alpn == b"h2" and data.conn.alpn != b"h2" and made and made.client:
            # HTTP/2 is not translated into HTTP/1, where a body without a length is read as the next request.
            self._tls_failed(made, "the host no longer speaks HTTP/2")
            made.client.abort(data.conn)

    @refusing(_nothing)
    def tls_failed_server(self, data: tls.TlsData) -> None:
        made = self._connections.get(data.conn.id)
        if made is not None:
            self._tls_failed(made, data.conn.error or "the TLS handshake failed")

    def _tls_failed(self, made: _Connection, detail: str) -> None:
        exchange = made.grant.exchange
        if exchange.failure is None:
            exchange.failure, exchange.detail = Reason.UPSTREAM_TLS_FAILED, detail
            self.gate.observer.upstream_failed(Reason.UPSTREAM_TLS_FAILED)
        if made.client is not None:
            made.client.broke((made.pin[0], made.pin[1], True), exchange)

    # --- replayed requests ---

    @refusing(_refuse_flow)
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.is_replay == "request" and flow.response is None and flow.error is None:
            self._judge_replay(flow)

    @refusing(_refuse_flow)
    def request(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.get(flow.id)
        if replay is None or flow.response is not None or flow.error is not None:
            return
        if place(flow.request) != replay.placed:
            self._judge_replay(flow)

    def _judge_replay(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.get(flow.id)
        exchange = replay.exchange if replay else self.gate.begin(flow.client_conn.peername[:2])
        exchange.protocol, exchange.method = flow.request.http_version, flow.request.method
        facts = facts_of_changed(flow.request)
        asked = None
        if isinstance(facts, NotUnderstood):
            exchange.detail = facts.detail
            exchange.verdict = self.gate.refused(facts.reason, "http")
        else:
            head, asked = facts
            note_request(exchange, asked)
            exchange.verdict, websocket = decide_request(self.gate, asked, head)
            if exchange.verdict.allowed:
                body = Framing(length=len(flow.request.raw_content or b""))
                send_onward(flow.request, head, asked, exchange.verdict, body, websocket=websocket)
                exchange.tls_mode = "originate" if over_tls(exchange.verdict.treatment) else ""
        if not exchange.verdict.allowed:
            flow.request.stream = False
            request = asked.request if asked else None
            flow.response = refusal(self.gate, exchange, request, "", keep_alive=False)
        self._replays[flow.id] = _Replay(exchange, place(flow.request))
        annotate(flow, exchange)

    @refusing(_nothing)
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.get(flow.id)
        if replay is not None and replay.exchange.verdict.allowed and flow.response is not None:
            clean_response(flow.response)

    @refusing(_nothing)
    def response(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.pop(flow.id, None)
        if replay is not None:
            replay.exchange.response_code = flow.response.status_code if flow.response else 0
            self.gate.finish(replay.exchange)

    @refusing(_nothing)
    def error(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.pop(flow.id, None)
        if replay is not None:
            exchange = replay.exchange
            exchange.failure = Reason.UPSTREAM_CLOSED if exchange.verdict.allowed else None
            exchange.detail = exchange.detail or (flow.error.msg if flow.error else "")
            annotate(flow, exchange)
            self.gate.finish(exchange)


def _offer_alpn(data: ServerConnectionHookData, grant: Grant) -> None:
    """What is offered to a destination is what the client already speaks, so that nothing has to be translated."""
    if grant.treatment is Treatment.ORIGINATE:
        data.server.alpn_offers = [b"http/1.1"]
    elif data.server.tls and data.client.tls_established:
        data.server.alpn_offers = [b"h2" if data.client.alpn == b"h2" else b"http/1.1"]
