"""Sees a passed-through TLS handshake to where no further ClientHello can name another host (`relay.hello_retry`)."""

from __future__ import annotations

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.client_hello import BadHello, ClientHello
from egress_gateway.relay.hello_retry import SecondHello, asks_to_retry
from egress_gateway.relay.refuse import alert_for

from .byte_tunnel import ByteTunnel
from .client import InspectedClient
from .ending import Gate


class HandshakeGate(Gate):
    """Passes the judged hello, holds back what the client sends after it, and opens `tunnel` when none can differ."""

    def __init__(
        self, context: Context, client: InspectedClient, exchange: Exchange, hello: ClientHello, tunnel: ByteTunnel
    ) -> None:
        super().__init__(context, client)
        self._exchange = exchange
        self._tunnel = tunnel
        self._first_left = hello.size
        self._second = SecondHello(hello, client.gate.settings.limits.hello_bytes)
        self._held = bytearray()
        self._answer = bytearray()
        self._retries = False
        self._on = self._watch

    def _watch(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield from self._wake_in(self._client.gate.settings.limits.hello_timeout)
            yield from self._tunnel.handle_event(event)
        elif isinstance(event, events.Wakeup) and event.command is self._timer:
            yield from self._end(Reason.UPSTREAM_TIMEOUT, "the TLS handshake took too long")
        elif isinstance(event, events.DataReceived) and self._is_from_client(event):
            yield from self._from_client(event.data)
        elif isinstance(event, events.DataReceived):
            yield from self._tunnel.handle_event(event)
            yield from self._from_destination(event.data)
        elif isinstance(event, events.ConnectionClosed) and not self._is_from_client(event):
            # A destination that is gone is told nothing more.
            self._held.clear()
            self._on = self._tunnel.handle_event
            yield from self._tunnel.handle_event(event)
        else:
            yield from self._tunnel.handle_event(event)

    def _from_client(self, data: bytes) -> CommandGenerator[None]:
        first, rest = data[: self._first_left], data[self._first_left :]
        self._first_left -= len(first)
        self._held += rest
        if first:
            yield from self._tunnel.handle_event(events.DataReceived(self.context.client, first))
        if self._retries and rest:
            yield from self._judge_second()
        elif len(self._held) > self._client.gate.settings.limits.hello_bytes:
            yield from self._end(Reason.HELLO_TOO_LARGE, "too much before the destination answered the ClientHello")

    def _from_destination(self, data: bytes) -> CommandGenerator[None]:
        if self._retries:
            return
        self._answer += data
        again = asks_to_retry(self._answer)
        if again is False:
            yield from self._open()
        elif again:
            self._retries = True
            yield from self._judge_second()

    def _judge_second(self) -> CommandGenerator[None]:
        try:
            complete = self._second.read(self._held)
        except BadHello as bad:
            yield from self._end(bad.reason, str(bad))
            return
        if complete:
            yield from self._open()

    def _open(self) -> CommandGenerator[None]:
        self._timer = None
        self._on = self._tunnel.handle_event
        held, self._held = bytes(self._held), bytearray()
        if held:
            yield from self._tunnel.handle_event(events.DataReceived(self.context.client, held))

    def _end(self, reason: Reason, detail: str) -> CommandGenerator[None]:
        self._client.refuse(self._exchange, reason, detail, "tls")
        yield commands.CloseConnection(self.context.server)
        yield from self._farewell(alert_for(self._exchange.reason))
        self._client.finish(self._exchange)
