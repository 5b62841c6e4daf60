"""Judges the requests of one HTTP layer as mitmproxy and everybody else see them: as flows.

- When `requestheaders` has come back, a request is judged by what its client has said; if another addon has pointed it
  elsewhere, by where it points now.
- When `request` has come back it is judged again, if anybody, person or addon, has changed where it points since.
- A response that another addon has set stays as it is: nothing leaves then.
- What an origin answers is cleaned, and a 101 must be the answer to the WebSocket handshake that was let through.
"""

from __future__ import annotations

from dataclasses import dataclass

from mitmproxy import flow, http

from egress_gateway.policy.events import Exchange
from egress_gateway.policy.hostname import parse_host
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Treatment, Verdict
from egress_gateway.relay import forward
from egress_gateway.relay.http1 import Framing, Malformed, RequestHead
from egress_gateway.relay.target import Asked, NotUnderstood

from .client import Grant, InspectedClient
from .flows import annotate, clean_response, make_response, note_request, refusal, send_onward
from .requests import (
    NOT_ONE_REQUEST,
    Place,
    Scene,
    decide_request,
    facts_of_changed,
    is_one_request,
    over_tls,
    place,
    upgrade_problem,
)
from .upstream_http import MALFORMED

MOST_MESSAGES = 1000
"""WebSocket messages kept on a flow."""

_STREAMED = ("text/event-stream", "application/grpc")
"""Content types whose body has no end worth waiting for."""


@dataclass(eq=False, slots=True)
class Heard:
    """One request, from its head to the end of its answer."""

    exchange: Exchange
    head: RequestHead
    asked: Asked | NotUnderstood
    framing: Framing
    before: Place | None = None
    """Where the request pointed before other addons saw it."""
    placed: Place | None = None
    """Where it points since it was allowed."""
    verdict: Verdict | None = None
    grant: Grant | None = None
    websocket: bool = False
    streamed: bool = False
    """Whether it had left, body and all, when `request` went out."""
    counted: bool = False
    """Whether the permission has been counted."""
    failed: bool = False
    head_sent: bool = False
    chunked: bool = False
    flow: http.HTTPFlow | None = None

    @property
    def request(self) -> Request | None:
        return self.asked.request if isinstance(self.asked, Asked) else None

    @property
    def accept(self) -> str:
        return b", ".join(self.head.values(b"accept")).decode("latin-1")


class HttpJudge:
    """Made as that of the client's protocol, which has its own words for what becomes of the connection."""

    def __init__(self, client: InspectedClient, scene: Scene) -> None:
        self._client = client
        self._gate = client.gate
        self._scene = scene
        self.client_ended = False
        """Whether the client has said that it will send no more."""

    # --- what the client's protocol decides ---

    def _may_ask_on(self, heard: Heard) -> bool:
        """Whether the client's connection can go on after a refusal of this request."""
        raise NotImplementedError

    def _conclude(self, response: http.Response, *, unread: bool) -> None:
        """Says in an answer whether it is the last one. `unread`: the body of the request was not taken."""
        raise NotImplementedError

    # --- requests ---

    def judge(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """`requestheaders` has come back."""
        if shown.error is not None:
            return
        exchange = heard.exchange
        user = shown.metadata.get("proxyauth")
        if isinstance(user, tuple) and user:
            exchange.user = str(user[0])
        if shown.response is not None:
            self._answered_by_other(heard, shown.response)
            self._settle(heard, shown)
            return
        if place(shown.request) != heard.before:
            self._take_change(heard, shown)
        elif isinstance(heard.asked, Asked) and not is_one_request(shown.request):
            heard.asked = NOT_ONE_REQUEST
        self._decide(heard, shown)

    def _answered_by_other(self, heard: Heard, response: http.Response) -> None:
        exchange = heard.exchange
        exchange.response_code = response.status_code
        if response.status_code in (401, 407):
            exchange.verdict = self._gate.refused(Reason.PROXY_AUTHENTICATION_REQUIRED, "http")
        elif isinstance(heard.asked, Asked):
            exchange.verdict, _ = decide_request(self._gate, heard.asked, heard.head)
        else:
            self._client.refuse(exchange, heard.asked.reason, heard.asked.detail, "http")

    def note_body_gone(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """`request` is about to go out."""
        heard.streamed = bool(shown.request.stream)

    def judge_again(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """`request` has come back, with what other addons and people have made of the request."""
        if shown.response is not None or shown.error is not None or heard.streamed:
            return
        if place(shown.request) != heard.placed:
            self._take_change(heard, shown)
        elif is_one_request(shown.request):
            return
        else:
            heard.asked = NOT_ONE_REQUEST
        self._decide(heard, shown)

    def _take_change(self, heard: Heard, shown: http.HTTPFlow) -> None:
        facts = facts_of_changed(shown.request)
        if isinstance(facts, NotUnderstood):
            heard.asked = facts
        else:
            heard.head, heard.asked = facts
            note_request(heard.exchange, heard.asked)

    def _decide(self, heard: Heard, shown: http.HTTPFlow) -> None:
        exchange, asked = heard.exchange, heard.asked
        if isinstance(asked, NotUnderstood):
            self._client.refuse(exchange, asked.reason, asked.detail, "http")
            self.refuse_flow(heard, shown)
            return
        has_body = heard.framing.has_body
        verdict, heard.websocket = decide_request(self._gate, asked, heard.head, has_body=has_body)
        exchange.verdict = verdict
        heard.verdict = verdict
        if not verdict.allowed:
            self.refuse_flow(heard, shown)
            return
        tls = over_tls(verdict.treatment)
        exchange.tls_mode = "originate" if verdict.treatment is Treatment.ORIGINATE else "inspect" if tls else ""
        exchange.requested_server_name = self._scene.sni or ""
        current = RequestHead(
            minor=heard.head.minor,
            headers=list(shown.request.headers.fields),
            method=heard.head.method,
            target=heard.head.target,
        )
        try:
            send_onward(shown.request, current, asked, verdict, heard.framing, websocket=heard.websocket)
        except Malformed as error:
            # Another addon has put something into the header that is not a header.
            self._client.refuse(exchange, Reason.MALFORMED_REQUEST, str(error), "http")
            self.refuse_flow(heard, shown)
            return
        heard.placed = place(shown.request)
        heard.grant = self._client.grant(asked.request, verdict, exchange, "http", tls=tls)
        if forward.hops_left(heard.head) == 0:
            self._answer_as_last_hop(heard, shown)
            return
        if shown.request.headers.get("content-type", "").startswith(_STREAMED):
            shown.request.stream = True
        annotate(shown, exchange)

    def refuse_flow(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """Answers with what the exchange says."""
        keep_alive = self._may_ask_on(heard)
        shown.response = refusal(self._gate, heard.exchange, heard.request, heard.accept, keep_alive=keep_alive)
        self._settle(heard, shown)

    def _answer_as_last_hop(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """Max-Forwards is used up: the request ends here (RFC 9110, 7.6.2). Requests are not echoed to their sender."""
        status = 200 if shown.request.method == "OPTIONS" else 405
        shown.response = make_response(status, [(b"allow", b"OPTIONS"), (b"content-length", b"0")], b"")
        self._settle(heard, shown)

    def _settle(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """The request has its response and needs no body."""
        # mitmproxy cannot stream a body to nowhere.
        shown.request.stream = False
        shown.request.headers.pop("expect", None)
        if shown.response is not None:
            self._conclude(shown.response, unread=heard.framing.has_body)
        annotate(shown, heard.exchange)

    # --- what becomes of it ---

    def judge_response(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """`responseheaders` has come back."""
        response = shown.response
        if response is None or not heard.exchange.verdict.allowed or heard.exchange.response_code:
            return
        clean_response(response)
        if response.headers.get("content-type", "").startswith(_STREAMED):
            response.stream = True
        problem = upgrade_problem(heard.head, response, has_body=heard.framing.has_body)
        if problem:
            heard.exchange.failure, heard.exchange.detail = Reason.UPSTREAM_MALFORMED, problem
            answer = refusal(self._gate, heard.exchange, heard.request, heard.accept, keep_alive=False)
            # In place: mitmproxy's connection to the destination holds the same object, and must not become a pipe.
            response.status_code, response.reason = answer.status_code, answer.reason
            response.headers = answer.headers
        self._conclude(response, unread=False)

    def complete_response(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """`response` has come back."""
        failed = heard.exchange.failure is Reason.UPSTREAM_MALFORMED
        if failed and shown.response is not None and shown.response.raw_content == b"":
            shown.response.data.content = refusal(
                self._gate, heard.exchange, heard.request, heard.accept, keep_alive=False
            ).raw_content

    def trim_messages(self, _: Heard, shown: http.HTTPFlow) -> None:
        """Messages have been passed on; the flow keeps only the last."""
        if shown.websocket is not None and len(shown.websocket.messages) > MOST_MESSAGES:
            del shown.websocket.messages[: -MOST_MESSAGES // 2]

    def count_permission(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """A request that used a connection already open asked for no address, so it has not been counted."""
        exchange = heard.exchange
        if heard.counted or heard.verdict is None or not exchange.verdict.allowed:
            return
        heard.counted = True
        if self._client.has_dialled_for(exchange):
            return
        self._gate.allowed_again(heard.verdict, "http")
        peer = shown.server_conn.peername
        if peer is not None:
            address = parse_host(peer[0])
            exchange.upstream = None if isinstance(address, str) else (address, peer[1])

    def note_error(self, heard: Heard, shown: http.HTTPFlow) -> None:
        """`error` is about to go out."""
        self.count_permission(heard, shown)
        heard.failed = True
        exchange = heard.exchange
        text = shown.error.msg if shown.error else ""
        if not exchange.verdict.allowed and heard.verdict is None:
            # mitmproxy itself did not like the request.
            self._client.refuse(exchange, Reason.MALFORMED_REQUEST, text, "http")
        elif exchange.verdict.allowed and exchange.failure is None and not self._broken(heard):
            exchange.failure = self._blame(text)
            exchange.detail = exchange.detail or text
            if exchange.failure is not Reason.CLIENT_CLOSED:
                self._gate.observer.upstream_failed(exchange.failure)
        annotate(shown, exchange)

    def _broken(self, heard: Heard) -> bool:
        """Whether the connection had been refused or had failed before, for another request; mitmproxy remembers."""
        if heard.request is None or heard.verdict is None:
            return False
        where = (str(heard.request.host), heard.verdict.port, over_tls(heard.verdict.treatment))
        return self._client.why_broken(where, heard.exchange)

    def _blame(self, text: str) -> Reason:
        if self.client_ended or text.startswith("stream reset by client") or text == flow.Error.KILLED_MESSAGE:
            return Reason.CLIENT_CLOSED
        malformed = (MALFORMED, "Received ", "HTTP/1 protocol error", "HTTP/2 protocol error", "unexpected server")
        return Reason.UPSTREAM_MALFORMED if text.startswith(malformed) else Reason.UPSTREAM_CLOSED
