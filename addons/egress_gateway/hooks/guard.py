"""The last word on every connection, at the end of mitmproxy's chain of addons.

It is a member of the chain of its own, so that no other addon that raises, and no script that goes away, takes it
along. What it has not allowed is refused: a client connection is either taken over by the relay or goes through the
inspect hooks; an upstream connection nobody gave a verdict for is not opened.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from mitmproxy import connection, ctx
from mitmproxy.proxy.server import ConnectionHandler

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.policy.hostname import Address
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client import Client
from egress_gateway.relay.layer import RelayData, take_over
from egress_gateway.relay.serve import MODES, serve
from egress_gateway.relay.stream import Input
from egress_gateway.relay.upstream_tls import TlsContexts

from .fail_closed import refusing
from .inspect.addon import InspectHooks

REFUSED = "refused by the egress gateway"


def _refuse_client(_: Any, client: connection.Client) -> None:
    client.error = REFUSED


def _end_relay(_: Any, data: RelayData) -> None:
    data.writer.close()


class Guard:
    """`relaying` says which data path new connections take; `contexts` must be set before the first one is relayed."""

    def __init__(self, gate: Gatekeeper, inspect: InspectHooks) -> None:
        self.gate = gate
        self.inspect = inspect
        self.relaying = True
        self.contexts: TlsContexts | None = None
        self._admitted: set[str] = set()

    @refusing(_refuse_client)
    def client_connected(self, client: connection.Client) -> None:
        if client.error:
            return
        mode = client.proxy_mode.type_name
        if client.transport_protocol != "tcp" or mode not in MODES:
            self._refuse(client, Reason.MODE_NOT_SUPPORTED, f"{client.transport_protocol} in mode {mode}")
            return
        self._admitted.add(client.id)
        if not self.gate.admit(client.peername[0]):
            self._refuse(client, Reason.TOO_MANY_CONNECTIONS, f"more than {self._most()} connections")
            return
        if self.relaying:
            take_over(_handler(client))
        else:
            self.inspect.take_over(_handler(client), _original(client))

    @refusing(lambda _, __: None)
    def client_disconnected(self, client: connection.Client) -> None:
        if client.id in self._admitted:
            self._admitted.discard(client.id)
            self.gate.leave(client.peername[0])

    @refusing(_end_relay)
    async def egress_relay(self, data: RelayData) -> None:
        if self.contexts is None:
            raise RuntimeError("the gateway has not been configured")
        client = Client(self.gate, Input(data.reader), data.writer, data.client.peername[:2], _original(data.client))
        await serve(client, data.client.proxy_mode.type_name, self.contexts)

    def _refuse(self, client: connection.Client, reason: Reason, detail: str) -> None:
        exchange = self.gate.begin(client.peername[:2])
        exchange.detail = detail
        exchange.verdict = self.gate.refused(reason, "unknown")
        self.gate.finish(exchange)
        client.error = REFUSED

    def _most(self) -> int:
        return self.gate.settings.limits.connections_per_client


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
