"""The last word on every connection, at the end of mitmproxy's chain of addons.

It is a member of the chain of its own, so that no other addon that raises, and no script that goes away, takes it
along. What it has not allowed is refused: a client connection is either taken over by the relay or goes through the
inspect hooks; an upstream connection nobody gave a verdict for is not opened.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import Any, Protocol

from mitmproxy import connection, ctx
from mitmproxy.proxy.server import ConnectionHandler

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.nameserver.questions import NameServer, client_of
from egress_gateway.nameserver.serve import serve as serve_questions
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client import Client
from egress_gateway.relay.layer import RelayData, take_over
from egress_gateway.relay.serve import serve
from egress_gateway.relay.stream import Input
from egress_gateway.relay.upstream_tls import TlsContexts

from .fail_closed import refusing
from .inspect.addon import InspectHooks
from .inspect.flows import describe
from .modes import DNS, MODES

logger = logging.getLogger(__name__)

REFUSED = "refused by the egress gateway"


def _refuse_client(_: Any, client: connection.Client) -> None:
    client.error = REFUSED


def _end_relay(_: Any, data: RelayData) -> None:
    data.writer.close()


class _Counts(Protocol):
    """Counts the connections of a client, and says when they are too many."""

    def admit(self, client: str, /) -> bool: ...
    def leave(self, client: str, /) -> None: ...


class Guard:
    """`relaying` says which data path new connections take; `contexts` must be set before the first one is relayed."""

    def __init__(self, gate: Gatekeeper, inspect: InspectHooks) -> None:
        self.gate = gate
        self.inspect = inspect
        self.relaying = True
        self.contexts: TlsContexts | None = None
        self.name_server = NameServer(gate, show=self._show)
        self._admitted: dict[str, _Counts] = {}

    @refusing(_refuse_client)
    def client_connected(self, client: connection.Client) -> None:
        if client.error:
            return
        mode = client.proxy_mode.type_name
        if client.transport_protocol != "tcp" or mode not in MODES:
            self._refuse(client, Reason.MODE_NOT_SUPPORTED, f"{client.transport_protocol} in mode {mode}")
            return
        # Names are asked for on the way to a connection, which they must not use up.
        counts: _Counts = self.name_server if mode == DNS else self.gate
        self._admitted[client.id] = counts
        if not counts.admit(client.peername[0]):
            self._refuse(client, Reason.TOO_MANY_CONNECTIONS, f"more than {self._most(mode)} connections")
            return
        if self.relaying or mode == DNS:
            take_over(_handler(client))
        else:
            self.inspect.take_over(_handler(client), _original(client))

    @refusing(lambda _, __: None)
    def client_disconnected(self, client: connection.Client) -> None:
        counts = self._admitted.pop(client.id, None)
        if counts is not None:
            counts.leave(client.peername[0])

    @refusing(_end_relay)
    async def egress_relay(self, data: RelayData) -> None:
        if data.client.proxy_mode.type_name == DNS:
            await serve_questions(self.name_server, Input(data.reader), data.writer, client_of(data.client.peername))
            return
        if self.contexts is None:
            raise RuntimeError("the gateway has not been configured")
        client = Client(self.gate, Input(data.reader), data.writer, data.client.peername[:2], _original(data.client))
        await serve(client, data.client.proxy_mode.type_name, self.contexts)

    def _show(self, exchange: Exchange) -> None:
        """Questions make no flows: where flows are looked at, a refused one is a line of the event log."""
        if not self.relaying:
            logger.info("egress: %s", describe(exchange))

    def _refuse(self, client: connection.Client, reason: Reason, detail: str) -> None:
        exchange = self.gate.begin(client.peername[:2])
        exchange.detail = detail
        exchange.verdict = self.gate.refused(reason, "unknown")
        self.gate.finish(exchange)
        client.error = REFUSED

    def _most(self, mode: str) -> int:
        settings = self.gate.settings
        return settings.name_server.connections_per_client if mode == DNS else settings.limits.connections_per_client


def _handler(client: connection.Client) -> ConnectionHandler:
    handler: ConnectionHandler = ctx.master.addons.get("proxyserver").connections[client.id]
    return handler


def _original(client: connection.Client) -> tuple[Address, int] | None:
    """Where a transparent client dialled; None in explicit modes."""
    if client.proxy_mode.type_name in ("regular", "socks5"):
        return None
    address = _handler(client).layer.context.server.address
    if address is None:
        raise RuntimeError("the original destination of a transparent connection is not known")
    return ip_address(address[0]), address[1]
