"""Tells a client that it was refused, in the language it speaks: an HTTP response, a TLS alert, a closed connection."""

from __future__ import annotations

from egress_gateway.answer.refusal import reason_phrase, render
from egress_gateway.policy.events import Exchange
from egress_gateway.policy.reason import Reason
from egress_gateway.policy.request import Request

from .client import Client

# TLS alert records (RFC 8446, 6): type alert, version 3.1, two bytes, fatal, description.
_ALERT = b"\x15\x03\x01\x00\x02\x02"
ACCESS_DENIED = _ALERT + b"\x31"
UNRECOGNIZED_NAME = _ALERT + b"\x70"
INTERNAL_ERROR = _ALERT + b"\x50"

_NAME_DOES_NOT_FIT = frozenset({Reason.SNI_MISMATCH, Reason.SNI_MALFORMED, Reason.SNI_MISSING})
_FAILED_BEHIND_US = frozenset(
    {
        Reason.NAME_NOT_RESOLVED,
        Reason.CONNECT_FAILED,
        Reason.CONNECT_TIMEOUT,
        Reason.INTERNAL_ERROR,
        Reason.NOT_READY,
    }
)


async def refuse_http(
    client: Client,
    exchange: Exchange,
    request: Request | None = None,
    *,
    accept: str = "",
    head_only: bool = False,
    keep_alive: bool = False,
) -> None:
    """Answers with the status and body for the exchange's reason. Without `keep_alive` the client is expected to be
    closed by the caller; what it still sends is drained first, within bounds."""
    gate = client.gate
    explanation = gate.explain(request, exchange.verdict) if request and not exchange.verdict.allowed else None
    if explanation:
        exchange.hint = explanation.hint
    status, headers, body = render(exchange, explanation, accept=accept, detail=gate.settings.refusal_detail)
    exchange.response_code = status
    exchange.bytes_sent += len(body)
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, reason_phrase(exchange, status))]
    lines += [b"%s: %s\r\n" % field for field in headers]
    lines.append(b"connection: keep-alive\r\n\r\n" if keep_alive else b"connection: close\r\n\r\n")
    client.writer.write(b"".join(lines) + (b"" if head_only else body))
    if keep_alive:
        await client.flush()
    else:
        await client.linger()


def alert_for(reason: Reason) -> bytes:
    """The TLS alert, as a record, that fits the reason of a refusal or failure."""
    if reason in _NAME_DOES_NOT_FIT:
        return UNRECOGNIZED_NAME
    return INTERNAL_ERROR if reason in _FAILED_BEHIND_US else ACCESS_DENIED


async def refuse_tls(client: Client, exchange: Exchange) -> None:
    """Sends the alert that fits the exchange's reason."""
    client.writer.write(alert_for(exchange.reason))
    await client.linger()
