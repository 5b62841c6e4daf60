"""HTTP/1: the client's bytes are cut into requests by the relay's parser, one at a time.

The next head is looked at when the one before has been answered. A body is passed on only when its request was let
through. Where mitmproxy has no word for a refusal, or would use its own, the gate writes the answer.
"""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.net.check import is_valid_host
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers.http._http1 import Http1Server, make_body_reader

from egress_gateway.policy.hostname import Hostname, format_authority
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.http1 import NO_BODY, Malformed, RequestHead, TooManyFields, parse_request, request_framing
from egress_gateway.relay.stream import TooLarge
from egress_gateway.relay.target import Asked, NotUnderstood, ProxyTarget

from .client import InspectedClient
from .flows import note_request, refusal
from .http_connect import MakeTunnel, connect
from .http_gate import HttpGate
from .http_input import HttpInput
from .http_judge import Heard, HttpJudge
from .idle import Idle
from .opening import find_way
from .requests import Scene, decide_request, read_facts

_STAND_IN = Hostname("stand-in.invalid")


class Http1Judge(HttpJudge):
    """The last answer on a connection says so."""

    def _may_ask_on(self, heard: Heard) -> bool:
        head = heard.head
        asked_to_close = b"close" in head.tokens(b"connection") + head.tokens(b"proxy-connection")
        return isinstance(heard.asked, Asked) and head.minor == 1 and not asked_to_close and not head.values(b"upgrade")

    def _conclude(self, response: http.Response, *, unread: bool) -> None:
        if unread or (self._gate.draining and response.status_code != 101):
            response.headers["connection"] = "close"


class Http1Gate(HttpGate):
    """`make_tunnel` makes the layer for what follows an accepted CONNECT; without it CONNECT is not understood."""

    def __init__(
        self, context: Context, client: InspectedClient, scene: Scene, make_tunnel: MakeTunnel | None = None
    ) -> None:
        super().__init__(context, client, scene, Http1Judge(client, scene))
        self._scene = scene
        self._make_tunnel = make_tunnel
        self._input = HttpInput(client.gate.settings.limits)
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

    def _take(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.Wakeup) and event.command is self._timer:
            seconds = self._client.gate.settings.limits.header_timeout
            yield from self._refuse_unread(Reason.CLIENT_TIMEOUT, f"no complete header in {seconds:g} s")
            return
        if self._raw and self._now and isinstance(event, events.DataReceived):
            if self._is_from_client(event):
                self._now.exchange.bytes_received += len(event.data)
            else:
                self._now.exchange.bytes_sent += len(event.data)
        yield from super()._take(event)

    def _idle(self, event: Idle) -> CommandGenerator[None]:
        heard = self._now
        if heard is None or self._raw or heard.head_sent or self._on != self._event:
            yield from super()._idle(event)
            return
        seconds = self._client.gate.settings.limits.idle_timeout
        heard.exchange.failure = heard.exchange.failure or Reason.UPSTREAM_TIMEOUT
        heard.exchange.detail = heard.exchange.detail or f"nothing moved for {seconds:g} s"
        self._client.gate.observer.upstream_failed(Reason.UPSTREAM_TIMEOUT)
        yield from self._answer_and_close(heard)

    def _is_stalled(self) -> bool:
        if self._raw or self._now is None or self._unread:
            return self._raw and bool(self._waiting)
        taken = self._may_pass and self._input.in_body
        return bool(self._waiting) or (len(self._input) > 0 and not taken)

    def _client_says(self, event: events.DataReceived) -> CommandGenerator[None]:
        if self._raw:
            yield from self._pass(event)
        elif not self._unread:
            self._input.feed(event.data)

    def _client_closed(self, event: events.ConnectionClosed) -> CommandGenerator[None]:
        in_body = self._now is not None and self._may_pass and self._input.in_body
        if self._raw:
            yield from self._pass(event)
        elif in_body:
            yield from self._read_on()
            if self._input.in_body and self._on == self._event:
                yield from self._pass(event)
        # Else: who has said everything may still be waiting for the answer.

    # --- the client's bytes ---

    def _read_on(self) -> CommandGenerator[None]:
        """Takes as much of the input as may be taken now."""
        while not self._raw and self._on == self._event:
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
        if self._client.has_gone:
            self._input.take_all()  # what it wanted beside, nobody would take
            yield from self._close()
            return False
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
        # mitmproxy decodes A-labels and refuses the ones it cannot; `_hear` puts the true host in.
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

    def _hear(self, shown: http.HTTPFlow) -> Heard | None:
        heard = self._now
        if heard is not None and heard.request is not None and shown.request.data.host == _STAND_IN:
            shown.request.data.host = str(heard.request.host)
        return heard

    def _to_client(self, command: commands.SendData) -> CommandGenerator[None]:
        if self._on != self._event:
            return  # the last words have been said
        heard = self._now
        if heard is not None and heard.failed:
            yield self._error_of(heard, command)
        elif heard is None or self._raw:
            yield command
        else:
            self._count(heard, command.data)
            yield command

    def _error_of(self, heard: Heard, command: commands.SendData) -> commands.SendData:
        """mitmproxy's error page, with ours in its place where nothing has been said yet."""
        if heard.head_sent:
            return command
        answer = refusal(self._client.gate, heard.exchange, heard.request, heard.accept, keep_alive=False)
        heard.head_sent = True
        return commands.SendData(command.connection, http1.assemble_response(answer))

    def _count(self, heard: Heard, data: bytes) -> None:
        if heard.head_sent:
            heard.exchange.bytes_sent += _content_length(data, heard.chunked)
        elif not data.startswith(b"HTTP/1.1 100 "):
            heard.head_sent = True
            response = heard.flow.response if heard.flow else None
            coding = response.headers.get("transfer-encoding", "") if response else ""
            heard.chunked = "chunked" in coding.lower()

    def _close_asked(self, command: commands.CloseConnection) -> CommandGenerator[None]:
        if self._raw:
            yield from super()._close_asked(command)
        elif self._on == self._event:
            # The client may have asked for more, or be about to.
            yield from self._farewell()

    # --- hooks that come back ---

    def _judged(self, heard: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        """Finds the addresses of an allowed request, unless a connection is open, so that a refusal of theirs is a
        refusal of the request."""
        grant = heard.grant
        if grant is None or shown.response is not None or shown.error is not None or self._is_open(shown):
            return
        self._client.pace.stall(self)
        if not (yield from find_way(self._client, grant, heard.exchange)):
            self._judge.refuse_flow(heard, shown)

    def _is_open(self, shown: http.HTTPFlow) -> bool:
        wanted = (shown.request.host, shown.request.port)
        is_tls = shown.request.scheme == "https"
        return any(
            isinstance(peer, Server) and peer.connected and peer.tls == is_tls and peer.address == wanted
            for peer in self._http.connections
        )

    def _after_headers(self, heard: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        if heard is not self._now:
            return
        if shown.response is None and shown.error is None:
            self._may_pass = True
        elif self._input.in_body and self._on == self._event:
            yield from self._drop_body()

    def _after_response(self, heard: Heard, shown: http.HTTPFlow) -> None:
        super()._after_response(heard, shown)
        if shown.websocket is not None:
            self._raw = True
        elif heard is self._now:
            self._answered = True


def _content_length(data: bytes, chunked: bool) -> int:
    """The bytes of content in one piece of a response body as mitmproxy sends it."""
    return max(0, len(data) - data.index(b"\r\n") - 4) if chunked and b"\r\n" in data else len(data)
