"""A redirected connection, from its beginning: is it one of bytes, or does the client have to say a word first?"""

from __future__ import annotations

from dataclasses import replace

from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator

from egress_gateway.policy.request import Spoken
from egress_gateway.relay.stream_relay import Destination, describe

from .byte_tunnel import ByteTunnel
from .client import InspectedClient
from .ending import Gate
from .opening import byte_host, open_way
from .stream_gate import StreamGate


class TransparentGate(Gate):
    """A redirected connection: bytes under a rule for its address or a name of it, else judged by what it says."""

    def __init__(self, context: Context, client: InspectedClient, destination: Destination) -> None:
        super().__init__(context, client)
        self._destination = destination
        self._on = self._start

    def _start(self, event: events.Event) -> CommandGenerator[None]:
        gate = self._client.gate
        host = yield from byte_host(self._client, self._destination, has_spoken=False)
        child: Gate
        if host is None:
            child = StreamGate(self.context, self._client, self._destination)
            self._on = child.handle_event
            yield from child.handle_event(event)
            return
        destination = replace(self._destination, host=host)
        request = destination.request(Spoken.UNKNOWN)
        exchange = self._client.begin()
        exchange.protocol = "TCP"
        describe(exchange, destination)
        exchange.verdict = verdict = gate.decide(request, "tcp")
        opened = verdict.allowed and (
            yield from open_way(self.context, self._client, request, verdict, exchange, "tcp")
        )
        if opened:
            child = ByteTunnel(self.context, self._client, exchange)
            self._on = child.handle_event
            yield from child.handle_event(event)
        else:
            if not verdict.allowed:
                exchange.hint = gate.explain(request, verdict).hint
            yield from self._farewell()
            self._client.finish(exchange)
