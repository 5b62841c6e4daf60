"""Stands around mitmproxy's HTTP layer: strict bytes in, every request judged, every exchange counted.

- HTTP/1: the client's bytes are cut into requests by the relay's parser, one at a time; the next head is looked at when
  the one before has been answered. A body is passed on only when its request was let through.
- Every hook of the HTTP layer goes out and comes back through here, so that nothing comes between the last word on a
  request (see `http_judge`) and what is done with it.
- An exchange is finished once: with the response, the error, the end of the WebSocket, or the client.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.check import is_valid_host
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.http._hooks import (
    HttpErrorHook,
    HttpRequestHeadersHook,
    HttpRequestHook,
    HttpResponseHeadersHook,
    HttpResponseHook,
)
from mitmproxy.proxy.layers.http._http1 import Http1Server, make_body_reader
from mitmproxy.proxy.layers.websocket import WebsocketEndHook, WebsocketMessageHook
from mitmproxy.proxy.utils import ReceiveBuffer

from egress_gateway.gate.gatekeeper import Route
from egress_gateway.policy.hostname import Hostname, format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.http1 import NO_BODY, Malformed, RequestHead, TooManyFields, parse_request, request_framing
from egress_gateway.relay.stream import TooLarge
from egress_gateway.relay.target import Asked, NotUnderstood, ProxyTarget

from .client import EgressFindHook, FindData, InspectedClient
from .ending import Gate
from .flows import annotate, note_request, refusal
from .http_connect import MakeTunnel, connect
from .http_input import HttpInput
from .http_judge import Heard, HttpJudge
from .idle import Idle
from .pin import hold_back
from .requests import (
    Scene,
    decide_request,
    place,
    read_facts,
)
from .upstream_http import StrictHttpLayer

_STAND_IN = Hostname("stand-in.invalid")


class HttpGate(Gate):
    """`make_tunnel` makes the layer for what follows an accepted CONNECT; without it CONNECT is not understood."""

    def __init__(
        self, context: Context, client: InspectedClient, scene: Scene, make_tunnel: MakeTunnel | None = None
    ) -> None:
        super().__init__(context, client)
        self._scene = scene
        self._make_tunnel = make_tunnel
        self._is_http1 = context.client.alpn != b"h2"
        explicit = isinstance(scene.target, ProxyTarget)
        mode = HTTPMode.regular if explicit else HTTPMode.transparent
        self._http = StrictHttpLayer(context, mode, client.gate.settings.limits.header_bytes)
        self._judge = HttpJudge(client, scene, is_http1=self._is_http1)
        self._input = HttpInput(client.gate.settings.limits)
        self._heard: dict[str, Heard] = {}
        """By flow."""
        self._waiting: set[commands.Command] = set()
        """What the HTTP layer has asked for and not got yet."""
        self._on = self._event
        # HTTP/1 only:
        self._now: Heard | None = None
        """The request that is being read or answered."""
        self._may_pass = False
        """Whether its body may be passed on."""
        self._answered = False
        self._unread = False
        """Whether its body is thrown away."""
        self._raw = False
        """Whether HTTP is over: this is a WebSocket now."""

    # --- events in ---

    def _event(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self._is_from_client(event):
            yield from self._data(event)
        elif isinstance(event, events.ConnectionClosed) and self._is_from_client(event):
            yield from self._client_closed(event)
        elif isinstance(event, events.Wakeup) and event.command is self._timer:
            seconds = self._client.gate.settings.limits.header_timeout
            yield from self._refuse_unread(Reason.CLIENT_TIMEOUT, f"no complete header in {seconds:g} s")
        elif isinstance(event, events.HookCompleted):
            yield from self._came_back(event)
        else:
            if isinstance(event, events.CommandCompleted):
                self._waiting.discard(event.command)
            if self._raw and isinstance(event, events.DataReceived) and self._now:
                self._now.exchange.bytes_sent += len(event.data)
            yield from self._pass(event)
        if self._on == self._event:
            yield from self._read_on()
            self._client.pace.stall(self, self._is_stalled())

    def _idle(self, event: Idle) -> CommandGenerator[None]:
        heard = self._now
        unanswered = self._is_http1 and heard is not None and not self._raw and not heard.head_sent
        if heard is None or not unanswered or self._on != self._event:
            yield from super()._idle(event)
            return
        seconds = self._client.gate.settings.limits.idle_timeout
        heard.exchange.failure = heard.exchange.failure or Reason.UPSTREAM_TIMEOUT
        heard.exchange.detail = heard.exchange.detail or f"nothing moved for {seconds:g} s"
        self._client.gate.observer.upstream_failed(Reason.UPSTREAM_TIMEOUT)
        yield from self._answer_and_close(heard)

    def _is_stalled(self) -> bool:
        if not self._is_http1:
            # Streams wait for different things; only a connection that is being made can hold up much.
            return any(isinstance(command, commands.OpenConnection) for command in self._waiting)
        if self._raw or self._now is None or self._unread:
            return self._raw and bool(self._waiting)
        taken = self._may_pass and self._input.in_body
        return bool(self._waiting) or (len(self._input) > 0 and not taken)

    def _data(self, event: events.DataReceived) -> CommandGenerator[None]:
        if not self._is_http1:
            yield from self._pass(event)
        elif self._raw:
            if self._now:
                self._now.exchange.bytes_received += len(event.data)
            yield from self._pass(event)
        elif not self._unread:
            self._input.feed(event.data)

    def _client_closed(self, event: events.ConnectionClosed) -> CommandGenerator[None]:
        self._judge.client_ended = True
        in_body = self._now is not None and self._may_pass and self._input.in_body
        if not self._is_http1 or self._raw:
            yield from self._pass(event)
        elif in_body:
            yield from self._read_on()
            if self._input.in_body and self._on == self._event:
                yield from self._pass(event)
        # Else: who has said everything may still be waiting for the answer.

    # --- HTTP/1: the client's bytes ---

    def _read_on(self) -> CommandGenerator[None]:
        """Takes as much of the input as may be taken now."""
        while self._is_http1 and not self._raw and self._on == self._event:
            if self._now is None:
                if not (yield from self._read_head()):
                    return
            elif self._may_pass and self._input.in_body:
                if not (yield from self._read_body(self._now)):
                    return
            elif self._answered and not self._unread:
                self._now, self._answered, self._may_pass = None, False, False
            else:
                return

    def _read_head(self) -> CommandGenerator[bool]:
        limits = self._client.gate.settings.limits
        try:
            raw = self._input.take_head()
            head = None if raw is None else parse_request(raw, limits.header_fields)
        except TooLarge:
            yield from self._refuse_unread(
                Reason.HEADERS_TOO_LARGE, f"a header of more than {limits.header_bytes} bytes"
            )
            return False
        except Malformed as error:
            too_many = isinstance(error, TooManyFields)
            reason = Reason.HEADERS_TOO_LARGE if too_many else Reason.MALFORMED_REQUEST
            yield from self._refuse_unread(reason, str(error))
            return False
        if raw is None or head is None:
            yield from self._wait_for_head(limits.header_timeout)
            return False
        self._timer = None
        yield from self._begin(head, raw)
        return True

    def _wait_for_head(self, seconds: float) -> CommandGenerator[None]:
        if self._judge.client_ended:
            if len(self._input):
                yield from self._refuse_unread(Reason.MALFORMED_REQUEST, "the connection ended within a header section")
            else:
                yield from self._close()
        elif len(self._input) and self._timer is None:
            yield from self._wake_in(seconds)

    def _begin(self, head: RequestHead, raw: bytes) -> CommandGenerator[None]:
        if head.method == "CONNECT" and self._make_tunnel is not None:
            yield from self._connect(head, self._make_tunnel)
            return
        exchange = self._client.begin()
        exchange.protocol = f"HTTP/1.{head.minor}"
        exchange.method, exchange.path = head.method, head.target
        asked = read_facts(head, self._scene)
        framing = NO_BODY
        try:
            framing = request_framing(head)
        except Malformed as error:
            asked = NotUnderstood(Reason.MALFORMED_REQUEST, str(error))
        heard = Heard(exchange, head, asked, framing)
        if isinstance(asked, NotUnderstood):
            self._client.refuse(exchange, asked.reason, asked.detail, "http")
            yield from self._answer_and_close(heard)
            return
        note_request(exchange, asked)
        if head.method == "CONNECT":
            # Inside a tunnel; mitmproxy would answer in its own words.
            heard.exchange.verdict, _ = decide_request(self._client.gate, asked, head)
            yield from self._answer_and_close(heard)
            return
        self._now = heard
        self._may_pass, self._answered, self._unread = False, False, False
        self._input.begin_body(framing)
        # One spelling of the request line, so that mitmproxy's parser cannot read another destination in it.
        fields = raw[raw.index(b"\r\n") :]
        line = f"{head.method} {self._spelled(asked)} HTTP/1.{head.minor}".encode("ascii")
        yield from self._pass(events.DataReceived(self.context.client, line + fields))

    def _spelled(self, asked: Asked) -> str:
        if not isinstance(self._scene.target, ProxyTarget):
            return asked.path
        scheme, default_port = ("https", 443) if asked.wants_tls else ("http", 80)
        path = asked.path if asked.path.startswith("/") else "/"
        host = asked.request.host
        # mitmproxy decodes A-labels and refuses the ones it cannot; `_goes_out` puts the true host in.
        spelled = format_authority(host if is_valid_host(str(host)) else _STAND_IN, asked.request.port, default_port)
        return f"{scheme}://{spelled}{path}"

    def _read_body(self, heard: Heard) -> CommandGenerator[bool]:
        try:
            framed, count = self._input.take_body()
        except Malformed as error:
            heard.exchange.failure, heard.exchange.detail = Reason.MALFORMED_REQUEST, str(error)
            if heard.head_sent:
                yield from self._close()
            else:
                yield from self._answer_and_close(heard)
            yield from self._pass(events.ConnectionClosed(self.context.client))
            return False
        heard.exchange.bytes_received += count
        if framed:
            yield from self._pass(events.DataReceived(self.context.client, framed))
        return not self._input.in_body

    def _drop_body(self) -> CommandGenerator[None]:
        """Makes the HTTP layer believe that the body is over: its request was answered without it."""
        self._unread = True
        rest = self._input.drop_body()
        server = self._http.connections[self.context.client]
        if not rest and isinstance(server, Http1Server):
            server.body_reader = make_body_reader(0)
        yield from self._pass(events.DataReceived(self.context.client, rest))

    # --- refusals that make no flow ---

    def _refuse_unread(self, reason: Reason, detail: str) -> CommandGenerator[None]:
        exchange = self._client.begin()
        exchange.protocol = "HTTP/1.1"
        self._client.refuse(exchange, reason, detail, "http")
        head = RequestHead(minor=1, headers=[], method="", target="")
        yield from self._answer_and_close(Heard(exchange, head, NotUnderstood(reason, detail), NO_BODY))

    def _answer_and_close(self, heard: Heard) -> CommandGenerator[None]:
        answer = refusal(self._client.gate, heard.exchange, heard.request, heard.accept, keep_alive=False)
        yield from self._farewell(http1.assemble_response(answer))
        self._client.finish(heard.exchange)

    # --- CONNECT ---

    def _connect(self, head: RequestHead, make_tunnel: MakeTunnel) -> CommandGenerator[None]:
        self._client.pace.stall(self)
        outcome = yield from connect(self.context, self._client, head, make_tunnel)
        self._client.pace.stall(self, False)
        if outcome.tunnel is not None:
            first = self._input.take_all()
            self._on = outcome.tunnel.handle_event
            yield from outcome.tunnel.handle_event(events.Start())
            if first:
                yield from outcome.tunnel.handle_event(events.DataReceived(self.context.client, first))
        elif outcome.keep_alive:
            yield commands.SendData(self.context.client, outcome.answer)
        else:
            yield from self._farewell(outcome.answer)

    # --- what the HTTP layer sends out ---

    def _pass(self, event: events.Event) -> CommandGenerator[None]:
        for command in self._http.handle_event(event):
            if command.blocking:
                self._waiting.add(command)
            if isinstance(command, commands.OpenConnection):
                hold_back(command)
            if isinstance(command, commands.StartHook):
                self._goes_out(command)
                yield command
            elif isinstance(command, commands.SendData) and command.connection == self.context.client:
                yield from self._to_client(command)
            elif isinstance(command, commands.CloseConnection) and command.connection == self.context.client:
                yield from self._close_asked(command)
            else:
                yield command

    def _goes_out(self, hook: commands.StartHook) -> None:
        if isinstance(hook, HttpRequestHeadersHook):
            heard = self._now if self._is_http1 else self._judge.hear_http2(hook.flow)
            if heard is not None:
                heard.flow = hook.flow
                if hook.flow.request.data.host == _STAND_IN and heard.request is not None:
                    hook.flow.request.data.host = str(heard.request.host)
                heard.before = place(hook.flow.request)
                self._heard[hook.flow.id] = heard
        elif isinstance(hook, HttpErrorHook):
            heard = self._heard.get(hook.flow.id)
            if heard is not None:
                self._judge.note_error(heard, hook.flow)
        elif isinstance(hook, HttpRequestHook):
            heard = self._heard.get(hook.flow.id)
            if heard is not None:
                self._judge.note_body_gone(heard, hook.flow)
        elif isinstance(hook, HttpResponseHook):
            heard = self._heard.get(hook.flow.id)
            if heard is not None:
                self._judge.count_permission(heard, hook.flow)

    def _to_client(self, command: commands.SendData) -> CommandGenerator[None]:
        heard = self._now
        if not self._is_http1 or heard is None or self._on != self._event:
            if self._is_http1 and self._on != self._event:
                return  # the last words have been said
            yield command
            return
        if heard.failed and not heard.head_sent:
            # In place of mitmproxy's error page.
            answer = refusal(self._client.gate, heard.exchange, heard.request, heard.accept, keep_alive=False)
            heard.head_sent = True
            yield commands.SendData(command.connection, http1.assemble_response(answer))
            return
        if self._raw or heard.failed:
            yield command
            return
        if heard.head_sent:
            heard.exchange.bytes_sent += _content_length(command.data, heard.chunked)
        elif not command.data.startswith(b"HTTP/1.1 100 "):
            heard.head_sent = True
            response = heard.flow.response if heard.flow else None
            coding = response.headers.get("transfer-encoding", "") if response else ""
            heard.chunked = "chunked" in coding.lower()
        yield command

    def _close_asked(self, command: commands.CloseConnection) -> CommandGenerator[None]:
        if self._on != self._event:
            return
        if self._unread:
            yield from self._farewell()
        else:
            self._on = self._over
            yield command

    def _aside(self, event: events.Event) -> CommandGenerator[None]:
        # The HTTP layer still has to close its connections and to tell others of the end.
        if isinstance(event, events.HookCompleted):
            yield from self._came_back(event)
        else:
            yield from self._pass(event)

    # --- hooks that come back ---

    def _came_back(self, event: events.HookCompleted) -> CommandGenerator[None]:
        hook = event.command
        self._waiting.discard(hook)
        shown = getattr(hook, "flow", None)
        heard = self._heard.get(shown.id) if isinstance(shown, http.HTTPFlow) else None
        if heard is None or not isinstance(shown, http.HTTPFlow):
            yield from self._pass(event)
            return
        before = _BEFORE.get(type(hook))
        if before is not None:
            before(self._judge, heard, shown)
        if isinstance(hook, HttpRequestHeadersHook):
            if self._is_http1:
                yield from self._find_addresses(heard, shown)
            elif shown.response is not None:
                self._drop_http2_body(shown)
        yield from self._pass(event)
        if isinstance(hook, HttpRequestHeadersHook):
            yield from self._after_headers(heard, shown)
        elif isinstance(hook, HttpResponseHook):
            self._after_response(heard, shown)
        elif isinstance(hook, HttpErrorHook | WebsocketEndHook):
            self._finish(heard, shown)

    def _find_addresses(self, heard: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        """Finds the addresses of an allowed request, unless a connection is open, so that a refusal of theirs is a
        refusal of the request. (An HTTP/2 stream would hold up all others; there the connection is refused instead.)"""
        grant = heard.grant
        if grant is None or shown.response is not None or shown.error is not None or self._is_open(shown):
            return
        self._client.pace.stall(self)
        self._client.dials_for(heard.exchange)
        data = FindData(grant)
        yield EgressFindHook(data)
        found = data.found
        if isinstance(found, Route):
            grant.route, grant.found_at = found, time.monotonic()
            return
        exchange = heard.exchange
        if found is None:
            self._client.refuse(exchange, Reason.INTERNAL_ERROR, "", "http")
        else:
            exchange.detail = found.detail
            if not found.refused:
                exchange.failure = found.reason
                self._client.gate.observer.upstream_failed(found.reason)
        self._judge.refuse_flow(heard, shown)

    def _is_open(self, shown: http.HTTPFlow) -> bool:
        wanted = (shown.request.host, shown.request.port)
        is_tls = shown.request.scheme == "https"
        return any(
            isinstance(peer, Server) and peer.connected and peer.tls == is_tls and peer.address == wanted
            for peer in self._http.connections
        )

    def _after_headers(self, heard: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        if not self._is_http1 or heard is not self._now:
            return
        if shown.response is None and shown.error is None:
            self._may_pass = True
        elif self._input.in_body and self._on == self._event:
            yield from self._drop_body()

    def _drop_http2_body(self, shown: http.HTTPFlow) -> None:
        """mitmproxy reads the whole body before it answers; it shall at least not keep it."""
        for stream in self._http.streams.values():
            if stream.flow is shown:
                stream.request_body_buf = _Nowhere()

    def _after_response(self, heard: Heard, shown: http.HTTPFlow) -> None:
        if shown.websocket is not None:
            heard.exchange.response_code = shown.response.status_code if shown.response else 0
            self._raw = True
            return
        self._finish(heard, shown)
        if self._is_http1 and heard is self._now:
            self._answered = True

    def _finish(self, heard: Heard, shown: http.HTTPFlow) -> None:
        self._heard.pop(shown.id, None)
        exchange = heard.exchange
        if shown.response is not None and not exchange.response_code:
            exchange.response_code = shown.response.status_code
        if not self._is_http1:
            exchange.bytes_received = len(shown.request.raw_content or b"")
            exchange.bytes_sent = len(shown.response.raw_content or b"") if shown.response else 0
        annotate(shown, exchange)
        self._client.finish(exchange, shown=True)


_BEFORE: dict[type[commands.StartHook], Callable[[HttpJudge, Heard, http.HTTPFlow], None]] = {
    HttpRequestHeadersHook: HttpJudge.judge,
    HttpRequestHook: HttpJudge.judge_again,
    HttpResponseHeadersHook: HttpJudge.judge_response,
    HttpResponseHook: HttpJudge.complete_response,
    WebsocketMessageHook: HttpJudge.trim_messages,
}
"""What is done when a hook has come back, before the HTTP layer hears of it."""


class _Nowhere(ReceiveBuffer):
    """Takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __iadd__(self, _: bytes) -> Self:
        return self


def _content_length(data: bytes, chunked: bool) -> int:
    """The bytes of content in one piece of a response body as mitmproxy sends it."""
    return max(0, len(data) - data.index(b"\r\n") - 4) if chunked and b"\r\n" in data else len(data)
