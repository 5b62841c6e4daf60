"""HTTP/2 inside TLS that is decrypted: mitmproxy reads the client's bytes, and each stream is a request of its own."""

from __future__ import annotations

from typing import Self

from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.utils import ReceiveBuffer

from egress_gateway.relay.http1 import NO_BODY, RequestHead
from egress_gateway.relay.target import Asked, NotUnderstood

from .client import InspectedClient
from .flows import note_request
from .http_gate import HttpGate
from .http_judge import Heard, HttpJudge
from .requests import Scene, head_of_http2, read_facts


class Http2Judge(HttpJudge):
    """No answer speaks of the connection (RFC 9113, 8.2.2)."""

    def _may_ask_on(self, _: Heard) -> bool:
        return True

    def _conclude(self, response: http.Response, *, unread: bool) -> None:
        response.headers.pop("connection", None)


class Http2Gate(HttpGate):
    """Each stream is an exchange."""

    def __init__(self, context: Context, client: InspectedClient, scene: Scene) -> None:
        super().__init__(context, client, scene, Http2Judge(client, scene))
        self._scene = scene

    def _client_says(self, event: events.DataReceived) -> CommandGenerator[None]:
        yield from self._pass(event)

    def _client_closed(self, event: events.ConnectionClosed) -> CommandGenerator[None]:
        yield from self._pass(event)

    def _is_stalled(self) -> bool:
        # Streams wait for different things; only a connection that is being made can hold up much.
        return any(isinstance(command, commands.OpenConnection) for command in self._waiting)

    def _hear(self, shown: http.HTTPFlow) -> Heard:
        exchange = self._client.begin()
        exchange.protocol = "HTTP/2"
        exchange.method, exchange.path = shown.request.method, shown.request.path
        head = head_of_http2(shown.request)
        asked: Asked | NotUnderstood
        if isinstance(head, NotUnderstood):
            asked, head = head, RequestHead(minor=1, headers=[], method=shown.request.method, target="")
        else:
            asked = read_facts(head, self._scene)
        if isinstance(asked, Asked):
            note_request(exchange, asked)
        return Heard(exchange, head, asked, NO_BODY)

    def _judged(self, _: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        # The addresses of an allowed request are found when its connection is asked for, and that is refused then:
        # waiting for them here would hold up all other streams.
        if shown.response is not None:
            self._drop_body(shown)
        yield from ()

    def _drop_body(self, shown: http.HTTPFlow) -> None:
        """mitmproxy reads the whole body before it answers; it shall at least not keep it."""
        for stream in self._http.streams.values():
            if stream.flow is shown:
                stream.request_body_buf = _Nowhere()

    def _finish(self, heard: Heard, shown: http.HTTPFlow) -> None:
        heard.exchange.bytes_received = len(shown.request.raw_content or b"")
        heard.exchange.bytes_sent = len(shown.response.raw_content or b"") if shown.response else 0
        super()._finish(heard, shown)


class _Nowhere(ReceiveBuffer):
    """Takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # mitmproxy's has no types

    def __iadd__(self, _: bytes) -> Self:
        return self
