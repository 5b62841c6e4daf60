"""A verdict written onto a flow: where it goes and what it may carry, or the refusal; and what people see of it."""

from __future__ import annotations

import time
from typing import Any

from mitmproxy import http
from mitmproxy.net.http import status_codes

from egress_gateway.answer.refusal import reason_phrase, render
from egress_gateway.gate.gatekeeper import Gatekeeper
from egress_gateway.policy.events import Exchange, printable
from egress_gateway.policy.hostname import format_authority
from egress_gateway.policy.request import Request
from egress_gateway.policy.verdict import Verdict
from egress_gateway.relay import forward
from egress_gateway.relay.http1 import Framing, RequestHead, parse_fields
from egress_gateway.relay.target import Asked

from .requests import over_tls

REFUSED_MARK = ":no_entry:"

# What a request may not carry over HTTP/2 either; HTTP/1's own are dropped by the relay's `forward`.
_NOT_ONWARD = frozenset(
    {b"host", b"proxy-authorization", b"proxy-connection", b"x-forwarded-client-cert", b"x-istio-attributes"}
)
_NOT_BACK = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"proxy-status",
        b"te",
        b"trailer",
        b"x-egress-reason",
        b"x-forwarded-client-cert",
        b"x-istio-attributes",
    }
)


def note_request(exchange: Exchange, asked: Asked) -> None:
    """Puts what a request asks for into its exchange."""
    request = asked.request
    exchange.path = asked.path
    exchange.host, exchange.port = request.host, request.port
    exchange.authority = format_authority(request.host, request.port)


def send_onward(
    request: http.Request, head: RequestHead, asked: Asked, verdict: Verdict, framing: Framing, *, websocket: bool
) -> None:
    """Points `request` at the destination that was allowed, and leaves on it only what may go there."""
    tls = over_tls(verdict.treatment)
    host = format_authority(asked.request.host, verdict.port, 443 if tls else 80)
    request.data.host = str(asked.request.host)
    request.data.port = verdict.port
    request.data.scheme = b"https" if tls else b"http"
    request.data.path = asked.path.encode("ascii")
    if request.is_http2:
        request.data.authority = host.encode("ascii")
        kept = [field for field in request.headers.fields if not _stays_here(field[0].lower())]
        request.headers = http.Headers(kept)
        return
    request.data.authority = b""
    onward = forward.request_bytes(
        head, method=head.method, path=asked.path, host=host, framing=framing, websocket=websocket
    )
    fields = parse_fields(onward, onward.index(b"\r\n") + 2)
    if b"close" in head.tokens(b"connection"):
        # mitmproxy closes the client's connection after the response by looking at this very request.
        fields.append((b"Connection", b"close"))
    request.headers = http.Headers(fields)


def _stays_here(name: bytes) -> bool:
    return name in _NOT_ONWARD or name.startswith(b"x-envoy-")


def clean_response(response: http.Response) -> None:
    """Leaves on a response only what may go on to the client."""
    dropped = set(_NOT_BACK)
    connection = [token.strip().lower() for token in response.headers.get("connection", "").split(",")]
    dropped.update(token.encode("latin-1") for token in connection if token not in ("close", "upgrade", "keep-alive"))
    dropped -= {b"content-length", b"transfer-encoding"}  # how the body is framed has been settled
    kept = [
        field
        for field in response.headers.fields
        if (name := field[0].lower()) not in dropped and not name.startswith(b"x-envoy-")
    ]
    for token in ("close", "upgrade"):
        if token in connection:
            kept.append((b"Connection", token.capitalize().encode("ascii")))
    kept.append((b"Via", b"1.1 %s" % forward.VIA_NAME))
    response.headers = http.Headers(kept)


def refusal(
    gate: Gatekeeper, exchange: Exchange, request: Request | None, accept: str, *, keep_alive: bool
) -> http.Response:
    """The answer to a refused or failed exchange; fills in what the exchange learns by it."""
    explanation = None
    if request is not None and not exchange.verdict.allowed:
        explanation = gate.explain(request, exchange.verdict)
        exchange.hint = explanation.hint
    status, headers, body = render(exchange, explanation, accept=accept, detail=gate.settings.refusal_detail)
    exchange.response_code = status
    fields = [*headers, (b"connection", b"keep-alive" if keep_alive else b"close")]
    response = make_response(status, fields, body)
    response.reason = reason_phrase(exchange, status).decode("ascii")
    return response


def make_response(status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> http.Response:
    """A response with exactly these fields; `http.Response.make` would set others."""
    now = time.time()
    return http.Response(
        http_version=b"HTTP/1.1",
        status_code=status,
        reason=status_codes.RESPONSES.get(status, "Refused").encode("ascii"),
        headers=http.Headers(fields),
        content=body,
        trailers=None,
        timestamp_start=now,
        timestamp_end=now,
    )


def annotate(flow: http.HTTPFlow, exchange: Exchange) -> None:
    """Shows the verdict on the flow: a mark, a line, and plain values that can be saved with it."""
    verdict = exchange.verdict
    word = "allowed" if verdict.allowed else "refused"
    rule = f" by {verdict.rule_key}" if verdict.rule else ""
    reason = "" if verdict.allowed and exchange.failure is None else f": {exchange.reason}"
    detail = f" ({exchange.detail})" if exchange.detail else ""
    flow.comment = printable(f"{word}{rule}{reason}{detail}", 512)
    if not verdict.allowed and not flow.marked:
        flow.marked = REFUSED_MARK
    values: dict[str, Any] = {
        "verdict": "allow" if verdict.allowed else "deny",
        "reason": exchange.reason.value,
        "rule": verdict.rule_key,
        "treatment": verdict.treatment.value,
        "destination": printable(exchange.authority, 512),
        "detail": printable(exchange.detail, 512),
        "hint": printable(exchange.hint, 512),
        "request_id": exchange.request_id,
    }
    flow.metadata["egress"] = values


def describe(exchange: Exchange) -> str:
    """An exchange that makes no flow, in one line for the event log."""
    verdict = exchange.verdict
    word = "allowed" if verdict.allowed else "refused"
    what = " ".join(filter(None, (exchange.method or exchange.protocol, exchange.authority)))
    server_name = exchange.requested_server_name
    sni = f", server name {server_name}" if server_name and server_name != str(exchange.host) else ""
    rule = f" by {verdict.rule_key}" if verdict.rule else ""
    reason = "" if verdict.allowed and exchange.failure is None else f": {exchange.reason}"
    detail = f" ({exchange.detail})" if exchange.detail else ""
    client = f"{exchange.client[0]}:{exchange.client[1]}"
    return printable(f"{client} {what or 'connection'}{sni} {word}{rule}{reason}{detail}", 512)
