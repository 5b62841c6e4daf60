"""A tunnel whose bytes nobody looks at: what CONNECT, SOCKS5 and the transparent modes end in where a rule says so."""

from __future__ import annotations

from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import TCPLayer

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason

from .client import InspectedClient
from .ending import Gate
from .idle import Idle


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
