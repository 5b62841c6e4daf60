"""The hooks of connections to destinations: `server_connect` is the choke point.

What nobody was granted is judged here, resolved once, and pinned; what is connected must be what was judged, and TLS is
verified for the name that was judged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from mitmproxy import connection, tls
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from egress_gateway.gate.byte_names import find_byte_host, find_byte_name
from egress_gateway.gate.gatekeeper import Gatekeeper, NoRoute, Route
from egress_gateway.gate.live import LiveConnection
from egress_gateway.hooks.fail_closed import REFUSED, nothing, refusing
from egress_gateway.policy.destination import plain
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import MalformedHost, format_authority, parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request, Spoken
from egress_gateway.policy.verdict import Treatment, Verdict

from .client import ByteHostData, FindData, Grant, InspectedClient, Where
from .opening import note_no_route
from .pin import PinnedAddress, dial_pins, pinned


@dataclass(slots=True)
class _Connection:
    """A connection to a destination, from the moment it may be dialled."""

    grant: Grant
    verdict: Verdict
    pin: PinnedAddress
    client: InspectedClient | None
    """None for a replayed request."""
    live: LiveConnection | None = None


def _refuse_server(_: Any, data: ServerConnectionHookData) -> None:
    data.server.error = REFUSED


def _refuse_tls(_: Any, data: tls.TlsData) -> None:
    # Without it mitmproxy closes the connection; whatever is in it instead would be used.
    data.ssl_conn = None


def _end_server(hooks: DestinationHooks, data: ServerConnectionHookData) -> None:
    hooks.abort(data)


class DestinationHooks:
    """`clients` are those who are let in, by the id of their connection."""

    def __init__(self, gate: Gatekeeper, clients: Mapping[str, InspectedClient]) -> None:
        self.gate = gate
        self._clients = clients
        self._connections: dict[str, _Connection] = {}

    @refusing(nothing)
    async def egress_find(self, data: FindData) -> None:
        """Finds the addresses of a request before its connection is asked for, so that it can be refused as one."""
        grant = data.grant
        verdict = self.gate.decide(grant.request, grant.protocol)
        if (verdict.treatment, verdict.port) == (grant.treatment, grant.port):
            data.found = await self.gate.find_addresses(grant.request, verdict, grant.exchange, grant.protocol)

    @refusing(nothing)
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
            note_no_route(self.gate, exchange, found)
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
        server.error = f"{exchange.reason}: {exchange.detail or REFUSED}"
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

    @refusing(nothing)
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

    @refusing(nothing)
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

    @refusing(nothing)
    def tls_established_server(self, data: tls.TlsData) -> None:
        started = data.conn.timestamp_tls_setup or time.time()
        begun = getattr(data.conn, "timestamp_tcp_setup", None) or started
        self.gate.observer.secured(max(0.0, started - begun))
        made = self._connections.get(data.conn.id)
        if data.context.client.alpn == b"h2" and data.conn.alpn != b"h2" and made and made.client:
            # HTTP/2 is not translated into HTTP/1, where a body without a length is read as the next request.
            self._tls_failed(made, "the host no longer speaks HTTP/2")
            made.client.abort(data.conn)

    @refusing(nothing)
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


def _offer_alpn(data: ServerConnectionHookData, grant: Grant) -> None:
    """What is offered to a destination is what the client already speaks, so that nothing has to be translated."""
    if grant.treatment is Treatment.ORIGINATE:
        data.server.alpn_offers = [b"http/1.1"]
    elif data.server.tls and data.client.tls_established:
        data.server.alpn_offers = [b"h2" if data.client.alpn == b"h2" else b"http/1.1"]
