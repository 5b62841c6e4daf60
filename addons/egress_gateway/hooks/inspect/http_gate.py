"""Stands around mitmproxy's HTTP layer: every request judged, every exchange counted.

- Every hook of the HTTP layer goes out and comes back through here, so that nothing comes between the last word on a
  request (see `http_judge`) and what is done with it.
- An exchange is finished once: with the response, the error, the end of the WebSocket, or the client.

What depends on how the client speaks is in `http1_gate` and `http2_gate`, which have a judge of their own each.
"""

from __future__ import annotations

from collections.abc import Callable

from mitmproxy import http
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
from mitmproxy.proxy.layers.websocket import WebsocketEndHook, WebsocketMessageHook

from egress_gateway.relay.target import ProxyTarget

from .client import InspectedClient
from .ending import Gate
from .flows import annotate
from .http_judge import Heard, HttpJudge
from .pin import hold_back
from .requests import Scene, place
from .upstream_http import StrictHttpLayer


class HttpGate(Gate):
    """What HTTP/1 and HTTP/2 share; made as one of the two, with the judge of that protocol."""

    def __init__(self, context: Context, client: InspectedClient, scene: Scene, judge: HttpJudge) -> None:
        super().__init__(context, client)
        explicit = isinstance(scene.target, ProxyTarget)
        mode = HTTPMode.regular if explicit else HTTPMode.transparent
        self._http = StrictHttpLayer(context, mode, client.gate.settings.limits.header_bytes)
        self._judge = judge
        self._heard: dict[str, Heard] = {}
        """By flow."""
        self._waiting: set[commands.Command] = set()
        """What the HTTP layer has asked for and not got yet."""
        self._on = self._event

    # --- what the client's protocol decides ---

    def _client_says(self, event: events.DataReceived) -> CommandGenerator[None]:
        raise NotImplementedError

    def _client_closed(self, event: events.ConnectionClosed) -> CommandGenerator[None]:
        raise NotImplementedError

    def _read_on(self) -> CommandGenerator[None]:
        """Something has happened: takes as much of what the client has said as may be taken now."""
        yield from ()

    def _is_stalled(self) -> bool:
        """Whether nobody takes what the client says."""
        raise NotImplementedError

    def _hear(self, shown: http.HTTPFlow) -> Heard | None:
        """The request that the HTTP layer has made this flow for."""
        raise NotImplementedError

    def _to_client(self, command: commands.SendData) -> CommandGenerator[None]:
        yield command

    def _judged(self, heard: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        """A request has been judged, and the HTTP layer is about to hear of it."""
        raise NotImplementedError

    def _after_headers(self, heard: Heard, shown: http.HTTPFlow) -> CommandGenerator[None]:
        """A request has been judged, and the HTTP layer has heard of it."""
        yield from ()

    # --- events in ---

    def _event(self, event: events.Event) -> CommandGenerator[None]:
        yield from self._take(event)
        if self._on == self._event:
            yield from self._read_on()
            self._client.pace.stall(self, self._is_stalled())

    def _take(self, event: events.Event) -> CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self._is_from_client(event):
            yield from self._client_says(event)
        elif isinstance(event, events.ConnectionClosed) and self._is_from_client(event):
            self._judge.client_ended = True
            yield from self._client_closed(event)
        elif isinstance(event, events.HookCompleted):
            yield from self._came_back(event)
        else:
            if isinstance(event, events.CommandCompleted):
                self._waiting.discard(event.command)
            yield from self._pass(event)

    def _aside(self, event: events.Event) -> CommandGenerator[None]:
        # The HTTP layer still has to close its connections and to tell others of the end.
        if isinstance(event, events.HookCompleted):
            yield from self._came_back(event)
        else:
            yield from self._pass(event)

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
            heard = self._hear(hook.flow)
            if heard is not None:
                heard.flow = hook.flow
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

    def _close_asked(self, command: commands.CloseConnection) -> CommandGenerator[None]:
        if self._on == self._event:
            self._on = self._over
            yield command

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
            yield from self._judged(heard, shown)
        yield from self._pass(event)
        if isinstance(hook, HttpRequestHeadersHook):
            yield from self._after_headers(heard, shown)
        elif isinstance(hook, HttpResponseHook):
            self._after_response(heard, shown)
        elif isinstance(hook, HttpErrorHook | WebsocketEndHook):
            self._finish(heard, shown)

    def _after_response(self, heard: Heard, shown: http.HTTPFlow) -> None:
        if shown.websocket is None:
            self._finish(heard, shown)
        else:
            heard.exchange.response_code = shown.response.status_code if shown.response else 0

    def _finish(self, heard: Heard, shown: http.HTTPFlow) -> None:
        self._heard.pop(shown.id, None)
        exchange = heard.exchange
        if shown.response is not None and not exchange.response_code:
            exchange.response_code = shown.response.status_code
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
