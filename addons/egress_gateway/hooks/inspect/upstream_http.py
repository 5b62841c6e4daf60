"""mitmproxy's HTTP layer with the relay's strict parser for what an HTTP/1 destination answers.

mitmproxy's own reads a response of any size, takes `103 Early Hints` for the answer, and gives up at trailers. Here a
head is read as RFC 9112 has it and within the size limit, interim responses are dropped (mitmproxy has told the client
to continue by itself), and so are trailers.

mitmproxy makes the layers of a connection to a destination in the middle of one of its functions and leaves no choice
of class; so the layer is given ours just before it gets its first event.
"""

from __future__ import annotations

from typing import Any

import h11
from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import HttpClient, HttpLayer, HTTPMode, RegisterHttpConnection
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client, make_body_reader
from mitmproxy.proxy.layers.http._http2 import Http2Client

from egress_gateway.relay.http1 import NO_BODY, Framing, Malformed, head_end, parse_response, response_framing

MALFORMED = "Cannot parse HTTP response: "
"""Begins the error message of a flow whose destination answered badly."""


class StrictHttpLayer(HttpLayer):
    def __init__(self, context: Context, mode: HTTPMode, header_bytes: int) -> None:
        super().__init__(context, mode)
        self._header_bytes = header_bytes

    def event_to_child(self, child: layer.Layer, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Start):
            self._make_strict(child)
        yield from super().event_to_child(child, event)

    def _make_strict(self, child: layer.Layer) -> None:
        """`child` may be TLS, with the HTTP client in it."""
        innermost: Any = child
        while type(innermost) is not HttpClient and isinstance(getattr(innermost, "child_layer", None), layer.Layer):
            innermost = innermost.child_layer
        if type(innermost) is HttpClient:
            innermost.__class__ = _StrictHttpClient
            innermost.__dict__["header_bytes"] = self._header_bytes


class _StrictHttpClient(HttpClient):
    header_bytes: int

    def _handle_event(self, event: events.Event) -> CommandGenerator[None]:
        server = self.context.server
        error = None if server.connected else (yield commands.OpenConnection(server))
        if not error:
            if server.alpn == b"h2":
                self.child_layer = Http2Client(self.context)
            else:
                self.child_layer = _StrictHttp1Client(self.context, self.header_bytes)
            self._handle_event = self.child_layer.handle_event  # type: ignore[method-assign]  # as in HttpClient
            yield from self.child_layer.handle_event(event)
        yield RegisterHttpConnection(server, error)


class _StrictHttp1Client(Http1Client):
    def __init__(self, context: Context, header_bytes: int) -> None:
        super().__init__(context)
        self._header_bytes = header_bytes

    def read_headers(self, event: events.ConnectionEvent) -> CommandGenerator[None]:
        if not isinstance(event, events.DataReceived) or self.request is None:
            yield from super().read_headers(event)
            return
        try:
            response, framing = self._take_final_head(self.request)
        except Malformed as error:
            assert self.stream_id is not None
            yield commands.CloseConnection(self.conn)
            yield ReceiveHttp(
                ResponseProtocolError(self.stream_id, f"{MALFORMED}{error}", ErrorCode.GENERIC_SERVER_ERROR)
            )
            return
        if response is None:
            return
        assert self.stream_id is not None
        self.response = response
        yield ReceiveHttp(ResponseHeaders(self.stream_id, response, end_stream=not framing.has_body))
        self.body_reader = _reader(framing)
        self.state = self.read_body
        yield from self.state(event)

    def _take_final_head(self, request: http.Request) -> tuple[http.Response | None, Framing]:
        """The head of the answer once it is complete. Raises `Malformed`."""
        while True:
            seen = bytearray(bytes(self.buf))
            end = head_end(seen, 0)
            if (len(seen) if end is None else end) > self._header_bytes:
                raise Malformed("response header too large")
            if end is None:
                return None, NO_BODY
            raw = bytes(self.buf.maybe_extract_at_most(end) or b"")
            head = parse_response(raw)
            framing = response_framing(head, request.method)
            if head.status == 101 or head.status >= 200:
                return http1.read_response_head(raw.split(b"\r\n")[:-2]), framing


class _WithoutTrailers:
    """mitmproxy raises at a body that ends with trailers."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.read_eof = reader.read_eof

    def __call__(self, buffer: Any) -> Any:
        event = self._reader(buffer)
        return h11.EndOfMessage() if isinstance(event, h11.EndOfMessage) else event


def _reader(framing: Framing) -> Any:
    if framing.chunked:
        return _WithoutTrailers(make_body_reader(None))
    return make_body_reader(-1 if framing.until_close else framing.length)
