"""The hooks of replayed requests: they have no client connection and hence no gate, so they are judged here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mitmproxy import http

from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.hooks.fail_closed import nothing, refusing
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.relay.http1 import Framing
from egress_gateway.relay.target import NotUnderstood

from .flows import annotate, clean_response, make_response, note_request, refusal, send_onward
from .requests import Place, decide_request, facts_of_changed, over_tls, place


@dataclass(slots=True)
class _Replay:
    exchange: Exchange
    placed: Place
    """Where it pointed when it was judged."""


def _refuse_flow(_: Any, flow: http.HTTPFlow) -> None:
    flow.request.stream = False
    flow.response = make_response(503, [(b"content-length", b"0"), (b"connection", b"close")], b"")


class ReplayHooks:
    """A request is judged once its header is known, and again where other addons have pointed it elsewhere since."""

    def __init__(self, gate: Gatekeeper) -> None:
        self.gate = gate
        self._replays: dict[str, _Replay] = {}

    @refusing(_refuse_flow)
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        if flow.is_replay == "request" and flow.response is None and flow.error is None:
            self._judge(flow)

    @refusing(_refuse_flow)
    def request(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.get(flow.id)
        if replay is None or flow.response is not None or flow.error is not None:
            return
        if place(flow.request) != replay.placed:
            self._judge(flow)

    def _judge(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.get(flow.id)
        exchange = replay.exchange if replay else self.gate.begin(flow.client_conn.peername[:2])
        exchange.protocol, exchange.method = flow.request.http_version, flow.request.method
        facts = facts_of_changed(flow.request)
        asked = None
        if isinstance(facts, NotUnderstood):
            exchange.detail = facts.detail
            exchange.verdict = self.gate.refused(facts.reason, "http")
        else:
            head, asked = facts
            note_request(exchange, asked)
            exchange.verdict, websocket = decide_request(self.gate, asked, head)
            if exchange.verdict.allowed:
                body = Framing(length=len(flow.request.raw_content or b""))
                send_onward(flow.request, head, asked, exchange.verdict, body, websocket=websocket)
                exchange.tls_mode = "originate" if over_tls(exchange.verdict.treatment) else ""
        if not exchange.verdict.allowed:
            flow.request.stream = False
            request = asked.request if asked else None
            flow.response = refusal(self.gate, exchange, request, "", keep_alive=False)
        self._replays[flow.id] = _Replay(exchange, place(flow.request))
        annotate(flow, exchange)

    @refusing(nothing)
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.get(flow.id)
        if replay is not None and replay.exchange.verdict.allowed and flow.response is not None:
            clean_response(flow.response)

    @refusing(nothing)
    def response(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.pop(flow.id, None)
        if replay is not None:
            replay.exchange.response_code = flow.response.status_code if flow.response else 0
            self.gate.finish(replay.exchange)

    @refusing(nothing)
    def error(self, flow: http.HTTPFlow) -> None:
        replay = self._replays.pop(flow.id, None)
        if replay is not None:
            exchange = replay.exchange
            exchange.failure = Reason.UPSTREAM_CLOSED if exchange.verdict.allowed else None
            exchange.detail = exchange.detail or (flow.error.msg if flow.error else "")
            annotate(flow, exchange)
            self.gate.finish(exchange)
