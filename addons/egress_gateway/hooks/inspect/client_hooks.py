"""The hooks of clients: who is let in, and TLS with them.

A client gets our layers in place of mitmproxy's before it has said a word. `next_layer` is therefore never asked on a
connection that was let in; where it is asked, somebody has kept us from letting it in, and the answer is to close.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

from mitmproxy import connection, tls
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.server import ConnectionHandler

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.hooks.fail_closed import nothing, refusing
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.stream import Reader
from egress_gateway.relay.stream_relay import Destination

from .client import InspectedClient
from .http1_gate import Http1Gate
from .outbox import unsent
from .pace import PacedReader
from .pin import dial_pins
from .requests import PROXY
from .socks_gate import SocksGate
from .stream_gate import StreamGate
from .transparent_gate import TransparentGate

logger = logging.getLogger(__name__)


class _Closed(layer.Layer):
    """Closes."""

    def _handle_event(self, _: events.Event) -> layer.CommandGenerator[None]:
        yield commands.CloseConnection(self.context.client)


def _close_next(_: Any, next_layer: layer.NextLayer) -> None:
    next_layer.layer = _Closed(next_layer.context)


class ClientHooks:
    """`decrypts` says whether new connections have their TLS decrypted."""

    def __init__(self, gate: Gatekeeper) -> None:
        self.gate = gate
        self.decrypts = False
        self.clients: dict[str, InspectedClient] = {}
        """By the id of their connection."""
        self._leaving: set[asyncio.WriteTransport] = set()
        """Of clients that are gone for everybody but asyncio, which still has something to send to them."""

    def take_over(self, handler: ConnectionHandler, original: tuple[Address, int] | None) -> None:
        """Puts our layers in the place of mitmproxy's. Call it before the handler has sent Start to its layer."""
        dial_pins(asyncio.get_running_loop())
        inspected = InspectedClient(self.gate, handler, original, decrypts=self.decrypts)
        io = handler.transports[handler.client]
        io.reader = PacedReader(cast(Reader, io.reader), inspected.pace)  # type: ignore[assignment]  # it only reads
        context = handler.layer.context
        context.layers.clear()
        handler.layer = self._top(context, inspected)
        self.clients[handler.client.id] = inspected
        self.gate.observer.connection_opened(handler.client.proxy_mode.type_name)

    def end_idle(self) -> int:
        """Ends the clients for whom nothing is going on; returns how many others there are."""
        self._forget_those_who_left()
        busy = len(self._leaving)
        for client in list(self.clients.values()):
            if client.is_idle:
                client.end()
            else:
                busy += 1
        return busy

    def _forget_those_who_left(self) -> None:
        if self._leaving:
            self._leaving = {transport for transport in self._leaving if unsent(transport)}

    def _top(self, context: Context, client: InspectedClient) -> layer.Layer:
        mode = context.client.proxy_mode.type_name
        if client.original is not None:
            address, port = client.original
            return TransparentGate(context, client, Destination(address, port, original=address))
        if mode == "regular":
            return Http1Gate(context, client, PROXY, StreamGate)
        if mode == "socks5":
            with_password = "proxyauth" in context.options and bool(context.options.proxyauth)
            return SocksGate(context, client, with_password=with_password)
        return _Closed(context)

    @refusing(nothing)
    def client_disconnected(self, client: connection.Client) -> None:
        inspected = self.clients.pop(client.id, None)
        if inspected is not None:
            inspected.close()
            self._forget_those_who_left()
            if inspected.transport is not None and unsent(inspected.transport):
                self._leaving.add(inspected.transport)
            self.gate.observer.connection_closed(client.proxy_mode.type_name)

    @refusing(_close_next)
    def next_layer(self, next_layer: layer.NextLayer) -> None:
        logger.warning("egress: a connection that was not let in is closed.")
        _close_next(self, next_layer)

    # --- TLS ---

    @refusing(nothing)
    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        data.establish_server_tls_first = True

    @refusing(nothing)
    def tls_established_client(self, data: tls.TlsData) -> None:
        client = self.clients.get(data.context.client.id)
        if client is not None and client.decrypting is not None:
            # From here on each request is an exchange of its own.
            client.forget(client.decrypting)
            client.decrypting = None

    @refusing(nothing)
    def tls_failed_client(self, data: tls.TlsData) -> None:
        client = self.clients.get(data.context.client.id)
        if client is not None and client.decrypting is not None:
            exchange, client.decrypting = client.decrypting, None
            exchange.failure = exchange.failure or Reason.CLIENT_CLOSED
            exchange.detail = exchange.detail or f"TLS with the client failed: {data.conn.error}"
            client.finish(exchange)
