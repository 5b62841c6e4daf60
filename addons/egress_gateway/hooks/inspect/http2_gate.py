"""HTTP/2 inside TLS that is decrypted: mitmproxy reads the client's bytes, and each stream is a request of its own."""

from __future__ import annotations

from typing import Self

from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.utils import ReceiveBuffer

from .client import InspectedClient
from .http_gate import HttpGate
from .http_judge import Heard
from .requests import Scene


class Http2Gate(HttpGate):
    def __init__(self, context: Context, client: InspectedClient, scene: Scene) -> None:
        super().__init__(context, client, scene, is_http1=False)

    def _client_says(self, event: events.DataReceived) -> CommandGenerator[None]:
        yield from self._pass(event)

    def _client_closed(self, event: events.ConnectionClosed) -> CommandGenerator[None]:
        yield from self._pass(event)

    def _is_stalled(self) -> bool:
        # Streams wait for different things; only a connection that is being made can hold up much.
        return any(isinstance(command, commands.OpenConnection) for command in self._waiting)

    def _hear(self, shown: http.HTTPFlow) -> Heard | None:
        return self._judge.hear_http2(shown)

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
