"""The HTTP answer to a request that was refused, or that was allowed and then failed.

The rules of this file:

- Every text from outside passes through `printable` before it is put anywhere, and then through the escaping
  of the form it is put into. A header therefore holds printable ASCII and cannot be split.
- Full detail names the rule that came nearest and the smallest rule that would do, so that whoever is refused
  can help themselves. `reason` detail is for clients that must not learn the rules.
- Whatever it is asked to answer, it never answers "allowed".
"""

from __future__ import annotations

import json
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple

from egress_gateway.policy.events import Exchange, printable
from egress_gateway.policy.explain import Explanation
from egress_gateway.policy.reason import ANSWERS, Reason

from .negotiate import preferred
from .page import page
from .told import Told


class Detail(StrEnum):
    FULL = "full"
    REASON = "reason"


class Refusal(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_TEXT, _PROBLEM, _JSON, _HTML = "text/plain", "application/problem+json", "application/json", "text/html"

_TELLS_INNER_ADDRESSES = frozenset({Reason.ADDRESS_NOT_ALLOWED, Reason.OWN_ADDRESS})
"""Their details name addresses that the client may not reach, and need not learn; the log has them."""

_RETRY_AFTER = {Reason.TOO_MANY_CONNECTIONS: b"5", Reason.NOT_READY: b"1"}
"""Seconds, for refusals that go away by waiting."""


def render(
    exchange: Exchange, explanation: Explanation | None = None, accept: str = "", detail: str = Detail.FULL
) -> Refusal:
    """The answer to `exchange`, in the form that `accept` (the client's Accept header) likes best.

    The body is empty for a HEAD request, and `content-length` then says how long it would have been. Headers
    of the connection (`connection`, `date`) are left to the sender.
    """
    reason = exchange.reason if exchange.reason is not Reason.ALLOWED else Reason.INTERNAL_ERROR
    told = _told(exchange, reason, explanation, full=detail == Detail.FULL)
    form = preferred(accept, (_TEXT, _PROBLEM, _JSON, _HTML))
    if form == _HTML:
        body, content_type = page(told), b"text/html; charset=utf-8"
    elif form == _TEXT:
        body, content_type = _text(told), b"text/plain; charset=utf-8"
    else:
        body, content_type = _problem(told), b"application/problem+json"
    encoded = body.encode("ascii")
    headers = [
        (b"proxy-status", _proxy_status(told, ANSWERS[reason].proxy_error).encode("ascii")),
        (b"x-egress-reason", reason.encode("ascii")),
        (b"content-type", content_type),
        (b"content-length", str(len(encoded)).encode("ascii")),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    if form == _HTML:
        headers.append((b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'"))
    if told.status == 407:
        headers.append((b"proxy-authenticate", b'Basic realm="egress gateway"'))
    if reason in _RETRY_AFTER:
        headers.append((b"retry-after", _RETRY_AFTER[reason]))
    return Refusal(told.status, headers, b"" if exchange.method == "HEAD" else encoded)


def reason_phrase(exchange: Exchange, status: int) -> bytes:
    """What stands behind the status. Clients that open a tunnel show people this at best, and never the body."""
    if exchange.method != "CONNECT":
        return _title(status).encode("ascii")
    reason = exchange.reason if exchange.reason is not Reason.ALLOWED else Reason.INTERNAL_ERROR
    return f"{reason}: {ANSWERS[reason].sentence}".encode("ascii")


def _told(exchange: Exchange, reason: Reason, explanation: Explanation | None, *, full: bool) -> Told:
    answer = ANSWERS[reason]
    hint = exchange.hint or (explanation.hint if explanation else "")
    nearest = exchange.verdict.rule or (explanation.nearest if explanation else None)
    smallest_rule = explanation.smallest_rule if explanation else ""
    return Told(
        status=answer.status,
        title=_title(answer.status),
        failed=exchange.verdict.allowed,
        target=_target(exchange),
        reason=reason.value,
        sentence=answer.sentence,
        detail=printable(exchange.detail, 512) if full and reason not in _TELLS_INNER_ADDRESSES else "",
        rule=printable(nearest.key, 512) if full and nearest else "",
        hint=printable(hint, 1024) if full else "",
        smallest_rule="\n".join(map(printable, smallest_rule.splitlines())) if full else "",
    )


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def _target(exchange: Exchange) -> str:
    """`GET www.example.com:443/path`; the query, which may hold secrets, is left out."""
    path = "" if exchange.method == "CONNECT" else exchange.path.partition("?")[0]
    where = exchange.authority or exchange.requested_server_name
    return printable(f"{exchange.method} {where}{path}".strip(), 512)


def _proxy_status(told: Told, error: str) -> str:
    """RFC 9209: the gateway's name, and an error type with its details as an RFC 8941 string."""
    details = f"{told.reason}: {told.sentence}" + (f" ({told.rule})" if told.rule else "")
    escaped = details.replace("\\", "\\\\").replace('"', '\\"')
    return f'egress; error={error}; details="{escaped}"'


def _text(told: Told) -> str:
    lines = [f"{told.status} {told.title}", ""]
    if told.target:
        lines.append(f"{told.what + ':':13} {told.target}")
    lines.append(f"Reason:       {told.reason}: {told.sentence}")
    lines += [
        f"{label + ':':13} {value}"
        for label, value in (("Detail", told.detail), (told.which_rule, told.rule), ("Hint", told.hint))
        if value
    ]
    if told.smallest_rule:
        lines += ["", "The smallest rule that would allow it (egressctl create -f - reads it):", ""]
        lines.append(told.smallest_rule)
    return "\n".join(lines) + "\n"


def _problem(told: Told) -> str:
    """RFC 9457. Members that have nothing to say are left out."""
    members: dict[str, Any] = {
        "type": f"urn:x-egress:reason:{told.reason}",
        "title": told.title,
        "status": told.status,
        "detail": told.sentence + (f": {told.detail}" if told.detail else ""),
        "reason": told.reason,
        "target": told.target,
        "rule": told.rule,
        "hint": told.hint,
        "smallestRule": told.smallest_rule + "\n" if told.smallest_rule else "",
    }
    return json.dumps({name: value for name, value in members.items() if value}, indent=2) + "\n"
